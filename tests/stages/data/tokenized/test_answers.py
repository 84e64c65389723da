"""What a model has to write when it is asked is what it is trained on: from the generation prompt to the turn's end."""

import re
from types import SimpleNamespace

import pytest
from support.conversations import RESULTS, TOOL, call
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split

from tunemill.stages.data.conversations.chat_template import NAMES, template_text
from tunemill.stages.data.conversations.encoding import Encoder
from tunemill.stages.data.conversations.example import BadRowError, Kit
from tunemill.stages.data.conversations.template_body import ASKED, renderer, seen
from tunemill.stages.data.conversations.tracing import tracer
from tunemill.stages.data.engines.reference import Reference
from tunemill.stages.data.tokenized.config import TokenizedConfig
from tunemill.stages.data.tokenized.formats.chat_template import chat_template

WORDS = SimpleNamespace(special_tokens_map={"bos_token": "<s>", "eos_token": "</s>"})
# Markers are one token each, other characters too.
PIECE = r"<[^<>\s]{1,40}>|\[\|\w{1,40}\|\]|\[/?[A-Z_]{2,40}\]|[\s\S]"
IM, COHERE, LLAMA, GEMMA, PHI = (
    "<|im_end|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|eot_id|>",
    "<end_of_turn>",
    "<|end|>",
)
# What ends an answer, where that is not EOS.
ENDS = {
    **dict.fromkeys(
        ("chatml", "falcon_h1", "nemotron_h", "phi_4", "qwen2_vl", "qwen3", "qwen3_5", "qwen_25"), IM
    ),
    **dict.fromkeys(("aya", "cohere", "command_a", "command_a_rag", "command_a_tool_use"), COHERE),
    **dict.fromkeys(("llama3", "llama3_2_vision"), LLAMA),
    **dict.fromkeys(("gemma", "gemma3", "gemma3n"), GEMMA),
    **dict.fromkeys(("phi_3", "phi_35"), PHI),
    **dict.fromkeys(("exaone", "exaone4"), "[|endofturn|]"),
    "deepseek_v3": "<｜end▁of▁sentence｜>",
    "jamba": "<|eom|>",
    "llama4": "<|eot|>",
}
GEMMA4 = ("gemma4", "gemma4_unified")
# Answers behind which nothing stands that ends a turn.
ENDLESS = {"llava": "it has no token that ends a turn", "metharme": "only a conversation ends, with EOS"}


def user(text):
    return {"role": "user", "content": text}


def says(text, **more):
    return {"role": "assistant", "content": text, **more}


SYSTEM = {"role": "system", "content": "Be brief"}
CALL = [call(1, q="x")]
CONVERSATIONS = {
    "plain": [user("Ask one"), says("Reply one")],
    "turns": [user("Ask one"), says("Reply one"), user("Ask two"), says("Reply two")],
    "system": [SYSTEM, user("Ask one"), says("Reply one"), user("Ask two"), says("Reply two")],
    "reasoning": [user("Ask one"), says("Reply one", reasoning_content="Hm one")],
    "much reasoning": [
        user("Ask one"),
        says("Reply one", reasoning_content="Hm one"),
        user("Ask two"),
        says("Reply two", reasoning_content="Hm two"),
    ],
    "calls": [user("Ask one"), {"role": "assistant", "tool_calls": CALL}, RESULTS[0], says("Reply two")],
    "calls with content": [
        user("Ask one"),
        says("Reply one", tool_calls=CALL),
        RESULTS[0],
        says("Reply two"),
    ],
    "calls with reasoning": [
        user("Ask one"),
        says("Reply one", tool_calls=CALL, reasoning_content="Hm one"),
        RESULTS[0],
        says("Reply two", reasoning_content="Hm two"),
    ],
    "calls of old": [
        user("Ask one"),
        says("Reply one", tool_calls=CALL, reasoning_content="Hm one"),
        RESULTS[0],
        says("Reply two", reasoning_content="Hm two"),
        user("Ask three"),
        says("Reply three"),
    ],
    "twice": [user("Ask one"), says("Reply one"), says("Reply two")],
    "a bracket": [user("Ask one"), says("<b>Reply one")],
}
MOVES = "the system text and the tools stand in the last question, so an earlier question has lost them"
THINKS = "the prompt opens a reasoning, which the template does not write around an earlier answer"
SILENT = "the prompt holds an empty thought channel, which the template does not write"
WRITTEN = "the template has written an earlier answer in another way since"
# (templates, conversations, number of the message) whose prompt is no beginning of the text -> why, and with which
# text training begins.
PARTED = {
    (("mistral_v2v3", "mistral_v3_tekken", "pixtral"), "system", 2): (MOVES, "Reply one"),
    (("mistral_v2v3", "mistral_v3_tekken", "pixtral"), "system", 4): (MOVES, "Reply two"),
    (("mistral_v2v3", "mistral_v3_tekken"), "calls of old", 1): (MOVES, "[TOOL_CALLS]"),
    (("mistral_v2v3", "mistral_v3_tekken"), "calls of old", 3): (MOVES, "Reply two"),
    (("qwen3",), "twice", 2): (WRITTEN, "<think>\n\n</think>\n\nReply two"),
    (("qwen3_5",), "twice", 2): (WRITTEN, "\n</think>\n\nReply two"),
    (("qwen3", "qwen3_5"), "calls of old", 3): (WRITTEN, "Reply two"),
    (("qwen3_5",), "calls of old", 1): (THINKS, "Reply one"),
    (("qwen3_5",), "turns", 1): (THINKS, "Reply one"),
    (("qwen3_5",), "system", 2): (THINKS, "Reply one"),
    (("qwen3_5",), "twice", 1): (THINKS, "Reply one"),
    (("qwen3_5",), "much reasoning", 1): (THINKS, "Reply one"),
    (("qwen3_5",), "calls", 1): (THINKS, '<tool_call>\n{"name": "get"'),
    (("qwen3_5",), "calls with content", 1): (THINKS, "Reply one"),
    (GEMMA4, "calls", 1): (SILENT, "<|tool_call>"),
    (GEMMA4, "calls with content", 1): (SILENT, "<|tool_call>"),
    (GEMMA4, "calls with reasoning", 1): (SILENT, "<|channel>thought\nHm one"),
    (GEMMA4, "calls of old", 1): (SILENT, "<|tool_call>"),
    (GEMMA4, "calls of old", 3): (WRITTEN, "Reply two"),
    (GEMMA4, "calls of old", 5): (SILENT, "Reply three"),
    (GEMMA4, "a bracket", 1): (SILENT, "<b>"),
    **{
        (GEMMA4, name, number): (SILENT, f"Reply {'one' if number < 3 - (name == 'twice') else 'two'}")
        for name, number in [
            ("plain", 1), ("turns", 1), ("turns", 3), ("system", 2), ("system", 4), ("reasoning", 1),
            ("much reasoning", 1), ("much reasoning", 3), ("twice", 1), ("twice", 2),
        ]
    },
}  # fmt: skip
REASONS = {
    (template, *place): reason for (templates, *place), reason in PARTED.items() for template in templates
}


def prepared(template, conversation, end, variables=None, **settings):
    """The text, which of its characters are trained on, and the renderer with the opening of an answer."""
    variables = {"strftime_now": "2026-01-31", **(variables or {})}
    render, opened = (renderer(WORDS, template, {**variables, **more}) for more in ({}, {ASKED: True}))
    vocabulary = {"<unk>": 0}

    def ids_of(text):
        return [vocabulary.setdefault(piece, len(vocabulary)) for piece in re.findall(PIECE, text)]

    trace = tracer(template, seen(WORDS, variables), "reasoning_content")
    kit = Kit(template, render, opened, "</s>", ids_of, None, trace=trace)
    made = chat_template(TokenizedConfig(type="chat_template", eot_tokens=list(end), **settings), kit)
    read = made.read(conversation)
    ids_of(read.text)
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = Split(Regex(PIECE), "isolated")
    encoder = Encoder(Reference(tokenizer), vocabulary["</s>"])
    (sample,) = encoder.encode([read], made.ends)
    ids, offsets = encoder.offsets_of(read.text)
    assert ids == sample.ids
    spans = [span for span, label in zip(offsets, sample.labels, strict=True) if label != -100]
    return read.text, {character for span in spans for character in range(*span)}, opened


def row_of(messages):
    called = any(message.get("tool_calls") for message in messages)
    return {"messages": messages, "tools": [TOOL] if called else None}


def expected_of(name, conversation, text, row, opened):
    """Of each answer, the first character that a model has to write and the one behind the last."""
    ends = ("<turn|>", "<|tool_response>") if name in GEMMA4 else (ENDS.get(name, "</s>"),)
    behind = 0
    for number, message in enumerate(row["messages"]):
        if message["role"] != "assistant":
            continue
        prompt = opened(row["messages"][:number], row["tools"])
        parted = REASONS.get((name, conversation, number))
        assert (parted is None) == text.startswith(prompt), (number, prompt, text)
        start = len(prompt) if parted is None else text.index(parted[1], behind)
        found = [place + len(end) for end in ends if (place := text.find(end, start)) >= 0]
        own = message.get("content") or ""
        last = number == len(row["messages"]) - 1
        ended = name not in ENDLESS or (found and last)
        behind = min(found) if ended else text.index(own, start) + len(own)
        yield start, behind


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", NAMES)
def test_from_the_generation_prompt_to_the_end_of_the_turn(name, conversation):
    row = row_of(CONVERSATIONS[conversation])
    ends = ("<turn|>", "<|tool_response>") if name in GEMMA4 else (ENDS.get(name, "</s>"),)
    try:
        text, trained, opened = prepared(template_text(name), row, ends)
    except BadRowError as error:
        assert conversation not in ("plain", "turns", "reasoning", "much reasoning", "a bracket"), error
        return
    if "calls" in conversation and "get" not in text:
        return
    ranges = list(expected_of(name, conversation, text, row, opened))
    expected = {character for start, end in ranges for character in range(start, end)}
    if name in GEMMA4 and conversation in ("calls with content", "calls with reasoning", "calls of old"):
        # The content of a message with calls stands behind what the tools say, and ends a turn of its own.
        start = text.index("Reply one<turn|>")
        expected |= set(range(start, start + len("Reply one<turn|>")))
    shown = {place: text[place] for place in sorted(trained ^ expected)}
    assert trained == expected, ("".join(shown.values()), sorted(shown)[:3], text)


def test_every_exception_is_needed_and_of_a_template():
    assert {name for name, *_ in REASONS} <= set(NAMES)
    assert len(PARTED) == 31


def said(template, row, end=(), variables=None, **settings):
    """What is trained on, each run of characters by itself."""
    text, trained, _ = prepared(template, row, end, variables, **settings)
    runs = re.finditer("1+", "".join("01"[place in trained] for place in range(len(text))))
    return [text[run.start() : run.end()] for run in runs]


@pytest.mark.parametrize(
    ("name", "variables", "expected"),
    [
        ("qwen3", {}, ["<think>\n\n</think>\n\nReply one<|im_end|>"]),
        ("qwen3", {"enable_thinking": True}, ["<think>\n\n</think>\n\nReply one<|im_end|>"]),
        ("qwen3", {"enable_thinking": False}, ["Reply one<|im_end|>"]),
        ("qwen3_5", {}, ["\n</think>\n\nReply one<|im_end|>"]),
        ("qwen3_5", {"enable_thinking": False}, ["Reply one<|im_end|>"]),
        ("exaone4", {}, ["Reply one[|endofturn|]"]),
        ("exaone4", {"enable_thinking": True}, ["\n</think>\n\nReply one[|endofturn|]"]),
        ("gemma4", {"enable_thinking": True}, ["Reply one<turn|>"]),
    ],
)
def test_what_the_prompt_holds_is_masked(name, variables, expected):
    ends = ["<|im_end|>", "[|endofturn|]", "<turn|>"]
    row = row_of(CONVERSATIONS["plain"])
    assert said(template_text(name), row, ends, variables) == expected


HARMONY = (
    "{% for m in messages %}<|start|>{{ m.role }}{% if m.role == 'assistant' %}"
    "{% if m.reasoning_content and loop.last %}<|channel|>analysis<|message|>{{ m.reasoning_content }}<|end|>"
    "<|start|>assistant{% endif %}<|channel|>final{% endif %}<|message|>{{ m.content }}"
    "{{ '<|return|>' if m.role == 'assistant' and loop.last else '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
# What an answer thought is written in the last one only, and opened for it.
OPENED = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' and loop.last %}<think>\n"
    "{{ m.reasoning_content }}\n</think>{% endif %}{{ m.content | trim }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)
UNASKED = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}"
QUESTIONS = (
    "{% for m in messages %}{{ '[Q]' + m.content + '[/Q]' if m.role == 'user' else ' ' + m.content + '</s>' }}"
    "{% endfor %}"
)


def test_headers_of_channels_are_trained():
    row = row_of(CONVERSATIONS["much reasoning"])
    assert said(HARMONY, row, ["<|end|>", "<|return|>"]) == [
        "<|channel|>final<|message|>Reply one<|end|>",
        "<|channel|>analysis<|message|>Hm two<|end|><|start|>assistant<|channel|>final<|message|>Reply two<|return|>",
    ]


def test_a_header_is_never_trained():
    row = row_of(CONVERSATIONS["much reasoning"])
    assert said(OPENED, row) == ["Reply one</s>", "Hm two\n</think>Reply two</s>"]
    assert said(UNASKED, row) == ["Reply one</s>", "Reply two</s>"]
    everybody = ["Ask one</s>", "Reply one</s>", "Ask two</s>", "Hm two\n</think>Reply two</s>"]
    assert said(OPENED, row, train_on_inputs=True) == everybody
    assert said(HARMONY, row, ["<|end|>", "<|return|>"], roles_to_train=["user"]) == [
        "Ask one<|end|>",
        "Ask two<|end|>",
    ]


def test_white_space_behind_a_prompt_without_an_opening_is_trained():
    row = row_of(CONVERSATIONS["turns"])
    assert said(QUESTIONS, row) == [" Reply one</s>", " Reply two</s>"]


def test_an_answer_that_begins_like_what_the_prompt_holds():
    row = row_of([user("Ask one"), says("<think>\nHm one</think>Reply one")])
    template = OPENED.replace("<think>\n{{ m.reasoning_content }}\n</think>", "").replace(
        " and loop.last", ""
    )
    assert said(template, row) == ["Hm one</think>Reply one</s>"]


def test_an_empty_answer_trains_nothing():
    row = row_of([user("Ask one"), says("Reply one"), user("Ask two"), says("")])
    assert said(template_text("qwen3"), row, ["<|im_end|>"]) == ["Reply one<|im_end|>"]


def test_roles_of_other_names_are_asked_too():
    template = HARMONY.replace("assistant", "model")
    row = {"messages": [user("Ask one"), {"role": "model", "content": "Reply one"}]}
    assert said(template, row, ["<|return|>"], roles_to_train=["model"]) == [
        "<|channel|>final<|message|>Reply one<|return|>"
    ]


def test_what_the_user_says_about_a_message_stays():
    detail = [{"begin_offset": 6, "end_offset": 8, "train": True}]
    messages = [
        {**user("Ask one"), "learn": True},
        says("Reply one", reasoning_content="Hm one", learn=False),
        user("Ask two"),
        says("Reply two", reasoning_content="Hm two", detail=detail),
    ]
    settings = {"message_field_training": "learn", "message_field_training_detail": "detail"}
    found = said(template_text("qwen3"), row_of(messages), ["<|im_end|>"], **settings)
    assert found == ["Ask one<|im_end|>", "two<|im_end|>"]
    parts = [{"type": "text", "text": "Reply ", "train": False}, {"type": "text", "text": "two"}]
    messages[-1] = says(parts, reasoning_content="Hm two")
    found = said(template_text("qwen3"), row_of(messages[2:]), ["<|im_end|>"])
    assert found == ["Hm two", "two<|im_end|>"]


@pytest.mark.parametrize(("eos", "ends"), [("none", 0), ("last", 1), ("turn", 2), ("all", 4)])
def test_what_stands_before_an_end_follows_it(eos, ends):
    row = row_of(CONVERSATIONS["turns"])
    found = "".join(said(template_text("command_a"), row, [COHERE], train_on_eos=eos))
    assert found.count("<|START_RESPONSE|>") == 0
    assert found.count("<|END_RESPONSE|>") == min(ends, 2)
    assert found.count(COHERE) == ends


def test_the_answers_of_tools_are_not_trained():
    row = row_of(CONVERSATIONS["calls with content"])
    ends = ["<turn|>", "<|tool_response>"]
    assert said(template_text("gemma4"), row, ends) == [
        '<|tool_call>call:get{q:<|"|>x<|"|>}<tool_call|><|tool_response>',
        "Reply one<turn|>",
        "Reply two<turn|>",
    ]


def test_a_long_conversation_is_not_rendered_once_for_each_answer():
    counts = []

    def counting(render):
        return lambda messages, tools: counts.append(len(messages)) or render(messages, tools)

    turns = [{"role": role, "content": f"{role} {n}"} for n in range(100) for role in ("user", "assistant")]
    template = template_text("qwen3")
    render, opened = (counting(renderer(WORDS, template, more)) for more in ({}, {ASKED: True}))
    kit = Kit(template, render, opened, "</s>", lambda _: [1], None)
    read = chat_template(TokenizedConfig(type="chat_template"), kit).read
    counts.clear()
    conversation = read({"messages": turns})
    assert len(conversation.turns) == 200
    assert len(counts) <= 8
    answers = [conversation.text[turn.start : turn.end] for turn in conversation.turns if turn.trained]
    assert answers[:-1] == [f"assistant {n}" for n in range(99)]
    assert answers[-1] == "<think>\n\n</think>\n\nassistant 99"
