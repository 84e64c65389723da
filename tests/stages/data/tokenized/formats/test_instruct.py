"""The instruction formats: which fields are read, how they are worded, what is trained on."""

import pytest
from support.formats import FormatBench

from tunemill.stages.data.conversations.example import BadRowError, Segment
from tunemill.stages.data.tokenized.config import TokenizedConfig
from tunemill.stages.data.tokenized.format_table import FORMATS
from tunemill.stages.data.tokenized.formats.recipes import RECIPES

ALPACA = "Below is an instruction that describes a task"
CONTEXT = ", paired with an input that provides further context"
WRITE = ". Write a response that appropriately completes the request."
ROW = {"instruction": "Add.", "input": "1, 2", "output": "3"}
PLAIN = {"instruction": "Say hi.", "output": "hi"}
CONCISE = ". The ASSISTANT writes a response that {how} completes the request.\n\n\n"


@pytest.fixture(scope="module")
def bench():
    return FormatBench("sp")


def texts(bench, row, **settings):
    """Prompt and output of a row."""
    prompt, output = bench.format(**settings).read(row)
    assert isinstance(prompt, Segment)
    assert (prompt.bos, prompt.eos, prompt.trained) == (True, 0, False)
    assert output.trained
    return prompt.text, output.text


WORDINGS = [
    (
        "alpaca",
        ROW,
        f"{ALPACA}{CONTEXT}{WRITE}\n\n### Instruction:\nAdd.\n\n### Input:\n1, 2\n\n### Response:\n",
        "3",
    ),
    ("alpaca", PLAIN, f"{ALPACA}{WRITE}\n\n### Instruction:\nSay hi.\n\n### Response:\n", "hi"),
    ("alpaca:instruct", PLAIN, f"{ALPACA}{WRITE}\n\n### Instruction:\nSay hi.\n\n### Response:\n", "hi"),
    ("alpaca_instruct.load", PLAIN, f"{ALPACA}{WRITE}\n\n### Instruction:\nSay hi.\n\n### Response:\n", "hi"),
    ("alpaca:chat", ROW, f"SYSTEM: {ALPACA}{CONTEXT}{WRITE}\nUSER: Add.\n1, 2\nASSISTANT:", "3"),
    ("alpaca_chat.load", PLAIN, f"SYSTEM: {ALPACA}{WRITE}\nUSER: Say hi.\nASSISTANT:", "hi"),
    (
        "alpaca:chatml",
        ROW,
        (
            f"<|im_start|>system\n{ALPACA}{CONTEXT}{WRITE}<|im_end|>\n"
            "<|im_start|>user\nAdd.\n1, 2<|im_end|>\n<|im_start|>assistant\n"
        ),
        "3",
    ),
    (
        "alpaca:phi",
        PLAIN,
        f"<|system|>\n{ALPACA}{WRITE}<|end|>\n<|user|>\nSay hi.<|end|>\n<|assistant|>\n",
        "hi",
    ),
    (
        "alpaca_chat.load_concise",
        ROW,
        (
            "SYSTEM: Below is an instruction from a USER that describes a task"
            f"{CONTEXT}{CONCISE.format(how='concisely and appropriately')}USER: Add.\n1, 2\nASSISTANT:"
        ),
        "3",
    ),
    (
        "alpaca_chat.load_qa",
        {"question": "Why?", "answer": "So."},
        (
            "SYSTEM: Below is an instruction from a USER that describes a task"
            f"{CONCISE.format(how='appropriately and concisely')}USER: Why?\nASSISTANT:"
        ),
        "So.",
    ),
    (
        "alpaca_chat.load_camel_ai",
        {"message_1": "Why?", "message_2": "So."},
        (
            "SYSTEM: Below is an instruction from a USER that describes a task"
            f"{CONCISE.format(how='appropriately and concisely')}USER: Why?\nASSISTANT:"
        ),
        "So.",
    ),
    ("alpaca_chat.load_no_prompt", ROW, "USER: Add.\n1, 2\nASSISTANT:", "3"),
    (
        "alpaca_instruct.load_no_prompt",
        ROW,
        "### Instruction:\nAdd.\n\n### Input:\n1, 2\n\n### Response:\n",
        "3",
    ),
    ("alpaca_w_system.load", {**ROW, "system": "Be."}, "SYSTEM: Be.\nUSER: Add.\n1, 2\nASSISTANT:", "3"),
    ("alpaca_w_system.load_chat", {**PLAIN, "system": ""}, "USER: Say hi.\nASSISTANT:", "hi"),
    (
        "alpaca_w_system.load_instruct",
        {**PLAIN, "system": "Be."},
        "Be.\n\n### Instruction:\nSay hi.\n\n### Response:\n",
        "hi",
    ),
    (
        "alpaca_w_system.load_open_orca",
        {"system_prompt": "Be.", "question": "Why?", "response": "So."},
        "### System:\nBe.\n### Human:\nWhy?\n### Assistant:\n",
        "So.",
    ),
    (
        "alpaca_w_system.load_open_orca_chatml",
        {"system_prompt": "Be.", "question": "Why?", "response": "So."},
        "<|im_start|>system\nBe.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
        "So.",
    ),
    (
        "orcamini",
        {"question": "Why?", "response": "So."},
        "### System:\n\n\n### User:\nWhy?\n\n### Response:\n",
        "So.",
    ),
    (
        "gpteacher:chat",
        {"instruction": "Say hi.", "response": "hi"},
        f"SYSTEM: {ALPACA}{WRITE}\nUSER: Say hi.\nASSISTANT:",
        "hi",
    ),
    (
        "oasst",
        {"INSTRUCTION": "Say hi.", "RESPONSE": "hi"},
        f"{ALPACA}{WRITE}\n\n### Instruction:\nSay hi.\n\n### Response:\n",
        "hi",
    ),
    (
        "jeopardy:chat",
        {"question": "A clue", "category": "Rivers", "answer": "the Rhine"},
        f"SYSTEM: {ALPACA}{CONTEXT}{WRITE}\nUSER: A clue\nRivers\nASSISTANT:",
        "what is the Rhine",
    ),
    (
        "explainchoice:chat",
        {"question": "Which?", "choices": ["a", 2], "solution": "a", "explanation": "no"},
        (
            "SYSTEM: Choose the answer that best answers the question. Explain your reasoning.\n\n"
            'USER: Which?\n- "a"\n- "2"\nASSISTANT:'
        ),
        "a",
    ),
    (
        "concisechoice",
        {"question": "Which?", "choices": ["a"], "explanation": "a, for"},
        (
            "Choose the answer that best answers the question. Be concise in your response.\n\n"
            'USER: Which?\n- "a"\nASSISTANT:'
        ),
        "a, for",
    ),
    (
        "summarizetldr:chat",
        {"article": "Long.", "summary": "L."},
        "USER: Summarize the following article as a TL;DR.\nLong.\nASSISTANT:",
        "L.",
    ),
    (
        "context_qa",
        {"article": "Facts.", "question": "Why?", "answer": "So."},
        (
            "SYSTEM: Use the following contextual information to concisely answer the question.\n\n"
            "USER: Facts.\n===\nWhy?\nASSISTANT:"
        ),
        "So.",
    ),
    (
        "context_qa.load_404",
        {"article": "Facts.", "unanswerable_question": "Why?"},
        (
            "SYSTEM: Use the following contextual information to concisely answer the question.\n\n"
            "USER: Facts.\n===\nWhy?\nASSISTANT:"
        ),
        (
            "The context provided does not contain any information about your inquiry. "
            "Therefore, I'm unable to answer your question based on the given context."
        ),
    ),
    (
        "context_qa.load_v2",
        {"context": "Facts.", "question": "Why?", "answer": "So."},
        "Context: Facts.\nQuestion: Why?\n",
        "Answer: So.",
    ),
    (
        "creative_acr.load_answer",
        {"instruction": "Sing.", "revision": "La", "answer": "unused"},
        (
            "Answer the following question in a comprehensive, in-depth, and creative way. Additionally your response "
            "should be relevant, accurate, and free of any ambiguity.\nUSER: Sing.\nASSISTANT:"
        ),
        "La",
    ),
]


@pytest.mark.parametrize(("kind", "row", "prompt", "output"), WORDINGS, ids=[case[0] for case in WORDINGS])
def test_wording(bench, kind, row, prompt, output):
    assert texts(bench, row, type=kind) == (prompt, output)


def test_every_family_is_worded_above():
    worded = {TokenizedConfig(type=case[0]).type for case in WORDINGS}
    styles = (":instruct", ":chat", ":chatml", ":phi")
    missing = {name for name in RECIPES if not name.endswith(styles)} - worded
    others = {"gpteacher", "jeopardy", "explainchoice", "summarizetldr", "alpaca_instruct"}
    own_tests = {"reflection", "metharme", "creative_acr.load_critique", "creative_acr.load_revise"}
    assert missing - others - own_tests == set()


def test_conversation_chooses_the_style_of_alpaca_chat(bench):
    assert texts(bench, PLAIN, type="alpaca_chat.load", conversation="phi") == texts(
        bench, PLAIN, type="alpaca:phi"
    )


def test_braces_of_the_data_stay(bench):
    row = {"instruction": "{input} {0} {", "input": "{instruction}", "output": "{}"}
    assert texts(bench, row, type="alpaca_chat.load_no_prompt") == (
        "USER: {input} {0} {\n{instruction}\nASSISTANT:",
        "{}",
    )


def test_numbers_are_written_out_and_an_empty_input_is_none(bench):
    assert texts(
        bench, {"instruction": 7, "input": "", "output": 1.5}, type="alpaca_chat.load_no_prompt"
    ) == (
        "USER: 7\nASSISTANT:",
        "1.5",
    )


@pytest.mark.parametrize("name", ["sp", "gemma", "llama3", "chatml"])
def test_bos_once_and_eos_once(name):
    bench = FormatBench(name)
    tokenizer = bench.tokenizer
    prompt = f"{ALPACA}{WRITE}\n\n### Instruction:\nSay hi.\n\n### Response:\n"
    ended = {**PLAIN, "output": "hi" + tokenizer.eos_token}
    for row in (PLAIN, ended):
        (sample,) = bench.samples([row], type="alpaca")
        answer = [*bench.ids("hi"), tokenizer.eos_token_id]
        assert sample.ids == [*bench.ids(prompt, bos=True), *answer]
        assert bench.trained(sample) == answer
    (whole,) = bench.samples([PLAIN], type="alpaca", train_on_inputs=True)
    assert whole.labels == whole.ids


def test_an_empty_output_trains_nothing(bench):
    (sample,) = bench.samples([{"instruction": "Say hi.", "output": ""}], type="alpaca")
    assert bench.trained(sample) == []


def test_metharme_ends_with_three_eos(bench):
    eos = bench.tokenizer.eos_token_id
    rows = [{"prompt": "Hi", "generation": "Yes"}, {"prompt": "Hi", "generation": "Yes</s>"}]
    for sample in bench.samples(rows, type="metharme"):
        assert sample.ids == [*bench.ids("Hi", bos=True), *bench.ids("Yes"), eos, eos, eos]
        assert bench.trained(sample) == [*bench.ids("Yes"), eos, eos, eos]


@pytest.mark.parametrize(
    ("kind", "before", "parts"),
    [
        (
            "reflection:instruct",
            "### Instruction:\nAdd.\n\n### Response:\n",
            "### Thought:\n4\n\n### Agent Reflection:\nwrong\n\n### Final Response:\n3",
        ),
        (
            "reflection:chat",
            "USER: Add.\nASSISTANT:",
            "\nTHOUGHT: 4\nASSISTANT REFLECTION: wrong\nASSISTANT:",
        ),
    ],
)
def test_reflection_is_one_text(bench, kind, before, parts):
    row = {"instruction": "Add.", "output": "4", "reflection": "wrong", "corrected": "3"}
    (segment,) = bench.format(type=kind).read(row)
    assert segment.masked.startswith(
        f"{ALPACA}. You, the Assistant, should generate a response as if it were"
    )
    assert segment.masked.endswith("as augmentations to the generation\n\n" + before)
    assert segment.text == segment.masked + parts
    (sample,) = bench.samples([row], type=kind)
    assert sample.ids == [*bench.ids(segment.text, bos=True), bench.tokenizer.eos_token_id]
    hidden = len(bench.ids(segment.masked, bos=True))
    assert sample.labels == [-100] * hidden + sample.ids[hidden:]
    (whole,) = bench.samples([row], type=kind, train_on_inputs=True)
    assert whole.labels == whole.ids


def test_reflection_without_a_style_has_no_system_text(bench):
    row = {"instruction": "Add.", "output": "4", "reflection": "wrong", "corrected": "3"}
    (segment,) = bench.format(type="reflection").read(row)
    assert segment.masked == "### Instruction:\nAdd.\n\n### Response:\n"


def test_critiques_are_yaml(bench):
    row = {
        "instruction": "Sing.",
        "answer": "No.",
        "revision": "La",
        "scores": {"refusal": 1, "creativity": 2},
        "critiques": {"refusal": {"explanation": "It refuses."}},
    }
    evaluation = "creativity: 2\nrefusal: 1\nrefusal:\n  explanation: It refuses.\n"
    prompt, output = texts(bench, row, type="creative_acr.load_critique")
    assert output == evaluation
    assert prompt.startswith(
        "USER: Given the following Question and Response, critique the Response on a scale"
    )
    assert prompt.endswith("    improvements: ...\n\nQuestion: Sing.\nAnswer: No.\n\nASSISTANT:")
    prompt, output = texts(bench, row, type="creative_acr.load_revise")
    assert output == "La"
    assert prompt.startswith("USER: Definitions:\nrefusal: whether the Response refuses")
    assert prompt.endswith(f"Question: Sing.\nAnswer: No.\nEvaluation:\n{evaluation}\n\nASSISTANT:")
    with pytest.raises(BadRowError, match="no field 'scores'"):
        texts(bench, {k: v for k, v in row.items() if k != "scores"}, type="creative_acr.load_critique")


@pytest.mark.parametrize(
    ("kind", "row", "reason"),
    [
        ("alpaca", {"output": "3"}, "no field 'instruction'"),
        ("alpaca", {"instruction": "Add."}, "no field 'output'"),
        ("alpaca", {"instruction": ["Add."], "output": "3"}, "field 'instruction' is not text"),
        ("alpaca", {"instruction": True, "output": "3"}, "field 'instruction' is not text"),
        ("gpteacher", ROW, "no field 'response'"),
        (
            "explainchoice",
            {"question": "Which?", "choices": "a", "solution": "a"},
            "'choices' must be a list",
        ),
        ("explainchoice", {"question": "Which?", "choices": [None], "solution": "a"}, "'choices' must be"),
        ("reflection", ROW, "no field 'reflection'"),
        ("jeopardy", {"question": "A clue", "category": "Rivers"}, "no field 'answer'"),
    ],
)
def test_bad_rows(bench, kind, row, reason):
    with pytest.raises(BadRowError, match=reason):
        bench.format(type=kind).read(row)


def test_every_format_has_a_place():
    assert all(place.startswith("tunemill.stages.data.tokenized.formats.") for place in FORMATS.values())
