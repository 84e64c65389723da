"""BOS once before a row and EOS once behind it, whatever the tokenizer puts around each text by itself."""

import json
from textwrap import dedent

import pytest
from support.formats import FormatBench
from support.tiny_tokenizer import make_tokenizer
from tokenizers import AddedToken, Tokenizer, processors

from tunemill.pipelines.config.user_code import code_files
from tunemill.stages.data.tokenized.formats.llama2_chat import DEFAULT_SYSTEM
from tunemill.stages.data.tokenized.formats.recipes import RECIPES

AROUND = ("<s>", "</s>", "[CLS]", "[SEP]", "[gMASK]", "<sop>")


def template(single):
    """A post-processor: `$A` is the text, the rest are tokens around it."""
    return lambda ids: processors.TemplateProcessing(
        single=single, pair=f"{single} $B", special_tokens=[(t, ids[t]) for t in AROUND]
    )


def bert(ids):
    return processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))


def roberta(ids):
    return processors.RobertaProcessing(("</s>", ids["</s>"]), ("<s>", ids["<s>"]))


def behind_bytes(ids):
    return processors.Sequence([processors.ByteLevel(trim_offsets=True), template("<s> $A </s>")(ids)])


# The post-processor, the tokenizer's settings, and then what a row begins and ends with.
TOKENIZERS = {
    "nothing": (template("$A"), {"eos_token": "</s>"}, [], "</s>"),
    "BOS": (template("<s> $A"), {"bos_token": "<s>", "eos_token": "</s>"}, ["<s>"], "</s>"),
    "EOS, as T5": (template("$A </s>"), {"eos_token": "</s>"}, [], "</s>"),
    "both, as add_eos_token": (
        template("<s> $A </s>"),
        {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True, "add_eos_token": True},
        ["<s>"],
        "</s>",
    ),
    "both, as RoBERTa": (roberta, {"bos_token": "<s>", "eos_token": "</s>"}, ["<s>"], "</s>"),
    "both, behind bytes": (behind_bytes, {"bos_token": "<s>", "eos_token": "</s>"}, ["<s>"], "</s>"),
    "two before": (template("[gMASK] <sop> $A"), {"eos_token": "</s>"}, ["[gMASK]", "<sop>"], "</s>"),
    "as BERT": (bert, {"cls_token": "[CLS]", "sep_token": "[SEP]"}, ["[CLS]"], "[SEP]"),
    "as BERT, with an EOS": (bert, {"eos_token": "</s>"}, ["[CLS]"], "</s>"),
    "EOS is the separator": (bert, {"bos_token": "[CLS]", "eos_token": "[SEP]"}, ["[CLS]"], "[SEP]"),
    "another EOS than it puts": (template("$A </s>"), {"eos_token": "<|im_end|>"}, [], "<|im_end|>"),
    "no end at all": (template("<s> $A"), {"bos_token": "<s>"}, ["<s>"], None),
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def given(request, tmp_path_factory):
    """The bench of a tokenizer, what it puts before a row, and what ends one."""
    processor, settings, opening, end = TOKENIZERS[request.param]
    folder = make_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    words = Tokenizer.from_file(str(folder / "tokenizer.json"))
    words.add_special_tokens([AddedToken(token, special=True) for token in AROUND])
    words.post_processor = processor(words.get_vocab())
    words.save(str(folder / "tokenizer.json"))
    fixed = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(fixed | settings))
    bench = FormatBench(str(folder))
    id_of = words.token_to_id
    return bench, [id_of(token) for token in opening], [] if end is None else [id_of(end)]


def row_of(opening, *texts):
    """Ids and labels of (ids, trained) behind `opening`, which is trained only where nothing is masked."""
    ids = [*opening, *(token for tokens, _ in texts for token in tokens)]
    masked = opening if not texts[0][1] else []
    labels = [*[-100] * len(masked), *opening[len(masked) :]]
    for tokens, trained in texts:
        labels += tokens if trained else [-100] * len(tokens)
    return ids, labels


def made(bench, row, **settings):
    (sample,) = bench.samples([row], **settings)
    return sample.ids, sample.labels


NAMES = (
    "instruction input output response INSTRUCTION RESPONSE question answer category article summary message_1 "
    "message_2 system system_prompt unanswerable_question context revision prompt generation reflection corrected "
    "solution"
)
FIELDS = dict.fromkeys(NAMES.split(), "Why?") | {
    "choices": ["a", "b"],
    "scores": {"refusal": 1},
    "critiques": {"refusal": "no"},
}


def test_instructions_and_answers(given):
    for kind, recipe in RECIPES.items():
        check_recipe(*given, kind, recipe)


def check_recipe(bench, opening, end, kind, recipe):
    fields = recipe.read(FIELDS)
    prompt = bench.ids(recipe.prompt(fields))
    answer = bench.ids(fields.output)
    if recipe.one_text:
        text = bench.ids(recipe.prompt(fields) + fields.output)
        prompt, answer = text[: len(prompt)], text[len(prompt) :]
    ends = end * (3 if kind == "metharme" else 1)
    assert made(bench, FIELDS, type=kind) == row_of(opening, (prompt, False), (answer + ends, True))
    assert made(bench, FIELDS, type=kind, train_on_inputs=True) == row_of(
        opening, (prompt + answer + ends, True)
    )


MAPPING = {"field_instruction": "q", "field_output": "a", "format": "Q: {instruction}", "system_format": "S"}


def test_a_mapping_with_formats(given):
    bench, opening, end = given
    prompt, answer = bench.ids("Q: Why?"), bench.ids("So.")
    kind = {**MAPPING, "no_input_format": "Q: {instruction}"}
    expected = row_of(opening, (prompt, False), (answer + end, True))
    assert made(bench, {"q": "Why?", "a": "So."}, type=kind) == expected


def test_an_empty_prompt_leaves_its_bos_to_the_answer(given):
    bench, opening, end = given
    kind = {**MAPPING, "no_input_format": "{instruction}"}
    expected = row_of(opening, ([], False), (bench.ids("So.") + end, True))
    assert made(bench, {"q": "", "a": "So."}, type=kind) == expected


def test_a_text_that_brings_bos_and_eos_along_gets_no_second_ones(given):
    bench, opening, end = given
    first, last = (bench.tokenizer.decode(ids) for ids in (opening, end))
    text = bench.ids("So.")
    assert made(bench, {"text": f"{first}So.{last}"}, type="completion") == row_of(
        opening, (text + end, True)
    )
    kind = {**MAPPING, "no_input_format": f"{first}{{instruction}}"}
    expected = row_of(opening, (bench.ids("Why?"), False), (text + end, True))
    assert made(bench, {"q": "Why?", "a": f"So.{last}"}, type=kind) == expected


def test_completion(given):
    bench, opening, end = given
    assert made(bench, {"text": "So."}, type="completion") == row_of(opening, (bench.ids("So.") + end, True))
    assert made(bench, {"text": ""}, type="completion") == ([], [])


def test_input_output_is_left_as_it_is(given):
    bench, _, _ = given
    row = {"segments": [{"label": False, "text": "Why?"}, {"label": True, "text": "So."}]}
    assert made(bench, row, type="input_output") == row_of(
        [], (bench.ids("Why?"), False), (bench.ids("So."), True)
    )


def test_llama2_chat_has_both_around_each_pair(given):
    bench, opening, end = given
    messages = [("human", "One?"), ("gpt", "1."), ("human", "Two?"), ("gpt", "2.")]
    row = {"conversations": [{"from": role, "value": text} for role, text in messages]}
    ids, labels = [], []
    for prompt, answer in (
        (f"[INST] <<SYS>>\n{DEFAULT_SYSTEM}\n<</SYS>>\n\nOne? [/INST]", " 1. "),
        ("[INST] Two? [/INST]", " 2. "),
    ):
        masked, text = bench.ids(prompt), bench.ids(prompt + answer)
        pair = row_of(opening, (masked, False), (text[len(masked) :] + end, True))
        ids += pair[0]
        labels += pair[1]
    assert made(bench, row, type="llama2_chat") == (ids, labels)


@pytest.mark.parametrize("roles", [["system", "human", "bot"], ["human", "bot", "human", "bot"], ["bot"]])
def test_pygmalion(given, roles):
    bench, opening, end = given
    words = {"system": "<|system|>Persona: Hi", "human": "<|user|> Hi", "bot": "<|model|> Hi"}
    parts = []
    for role in roles:
        text = bench.ids(words[role])
        masked = len(bench.ids("<|model|>")) if role == "bot" else len(text)
        parts += [(text[:masked], False), (text[masked:] + (end if role == "bot" else []), True)]
    row = {"conversations": [{"role": role, "value": "Hi"} for role in roles]}
    assert made(bench, row, type="pygmalion") == row_of(opening, *parts)


def test_stepwise_rows_have_no_end(given):
    bench, _, _ = given
    bos = bench.tokenizer.bos_token_id
    opening = [] if bos is None else [bos]
    step = bench.ids("So.") + bench.ids("\n")
    for prompt in ("Why?", f"{bench.tokenizer.bos_token or ''}Why?"):
        row = {"prompt": prompt, "completions": ["So."], "labels": [True]}
        ids, labels = made(bench, row, type="stepwise_supervised")
        assert ids == [*opening, *bench.ids("Why?"), *step]
        assert labels == [*[-100] * (len(ids) - 1), 1]


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        ("{'text': row['q']}", ("", "Why?")),
        ("{'instruction': row['q'], 'output': row['a']}", ("", "So.")),
        ("{'segments': [{'label': True, 'text': row['q']}]}", None),
    ],
)
def test_rows_that_own_code_makes(given, tmp_path, body, texts):
    bench, opening, end = given
    (tmp_path / "mine.py").write_text(dedent(f"def made(cfg):\n    return lambda row: {body}\n"))
    kind = {"type": "mine.made", "type_code": code_files("mine.made", tmp_path)}
    ids, labels = made(bench, {"q": "Why?", "a": "So."}, **kind)
    if texts is None:
        assert ids == labels == bench.ids("Why?")
        return
    answer = bench.ids(texts[1]) + end
    assert ids[: len(opening)] == opening and ids[-len(answer) :] == answer
    masked = [label for label in labels if label != -100][: -len(answer)]
    assert masked in ([], opening) and labels[-len(answer) :] == answer
    assert not set(ids[len(opening) : -len(answer)]) & {*opening, *end}


def test_a_conversation_has_what_its_template_writes(given):
    bench, _, _ = given
    text = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHail<|im_end|>\n"
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hail"}]
    assert made(bench, {"messages": messages}, type="chat_template", eot_tokens=["<|im_end|>"])[
        0
    ] == bench.ids(text)
