"""The fast engine makes the tokens that `tokenizers` makes, of the same characters, or is not used."""

import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from tunemill.stages.data.engines.battery import battery
from tunemill.stages.data.engines.encoded import DifferentError
from tunemill.stages.data.engines.fast import Fast
from tunemill.stages.data.engines.proof import Checked, proven, special_tokens, with_engine
from tunemill.stages.data.engines.reference import Reference
from tunemill.stages.data.engines.young import SURROGATES, young, young_or_unknown
from tunemill.stages.report import Report

GOLDEN = Path(__file__).parents[3] / "golden" / "tokenizers"
NAMES = ("chatml", "llama3", "gemma", "sp")
# As cl100k's, but for how it cuts white space at the end of a text: gigatoken takes the two for one.
ONE_LINE_END = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
MARKS_WITH_LETTERS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEXTS = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.text("ab ▁\n\t1éé🎉<s>|im_start", max_size=60),
        st.lists(
            st.sampled_from(["<s>", "</s>", "<|im_start|>", "<bos>", " ", "\n", "a", "é", "日本", "▁"])
        ).map("".join),
    ),
    max_size=6,
)


def golden(name):
    return Tokenizer.from_file(str(GOLDEN / name / "tokenizer.json"))


def changed(name, change):
    """A golden tokenizer with something else in its tokenizer.json."""
    described = json.loads((GOLDEN / name / "tokenizer.json").read_text(encoding="utf-8"))
    change(described)
    return Tokenizer.from_str(json.dumps(described))


def with_token(name, **flags):
    """A golden tokenizer with one more token."""

    def change(described):
        number = 1 + max(
            [*described["model"]["vocab"].values(), *(t["id"] for t in described["added_tokens"])]
        )
        usual = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        described["added_tokens"].append({"id": number, "content": "<|more|>", **usual, **flags})

    return changed(name, change)


def without_tilde(described):
    """A tokenizer.json that neither has the character nor its byte."""
    model = described["model"]
    for piece in [piece for piece in model["vocab"] if "~" in piece or piece == "<0x7E>"]:
        del model["vocab"][piece]
    model["merges"] = [merge for merge in model["merges"] if "~" not in "".join(merge)]


def composed_with(content):
    made = with_token("chatml", content=content, normalized=True)
    made.normalizer = normalizers.NFC()
    return made


def normalized(name, normalizer):
    made = golden(name)
    made.normalizer = normalizer
    return made


def cut(name, cutter):
    made = golden(name)
    made.pre_tokenizer = cutter
    return made


def by_pattern(pattern):
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def bridged(cutter):
    """A tokenizer with merges of letters, digits and signs with any byte behind: each cut between them shows."""
    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [(sign, other) for sign in "aA1." for other in signs if other not in "aA1."]
    made = Tokenizer(models.BPE({t: i for i, t in enumerate([*signs, *map("".join, merges)])}, merges))
    made.pre_tokenizer = cutter
    return made


def metaspace(scheme):
    made = normalized("gemma", None)
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=False)
    return made


# Tokenizers of many makes. Whether the fast engine is for them or not, what is made of texts must be the same.
MAKES = {
    **{name: lambda name=name: golden(name) for name in NAMES},
    "strips left": lambda: with_token("chatml", lstrip=True),
    "strips right": lambda: with_token("llama3", rstrip=True),
    "strips in pieces": lambda: with_token("sp", lstrip=True, rstrip=True),
    "single word": lambda: with_token("chatml", single_word=True),
    "normalized token": lambda: with_token("sp", normalized=True, special=False),
    "ordinary token": lambda: with_token("gemma", special=False),
    "composed": lambda: normalized("llama3", normalizers.NFC()),
    "compatible": lambda: normalized("llama3", normalizers.NFKC()),
    "lower case": lambda: normalized("chatml", normalizers.Lowercase()),
    "stripped": lambda: normalized("chatml", normalizers.Strip()),
    "prefix": lambda: cut("chatml", pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "words": lambda: cut(
        "chatml", pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel()])
    ),
    "digits": lambda: cut(
        "chatml",
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel()]),
    ),
    "one line end": lambda: cut("chatml", by_pattern(ONE_LINE_END)),
    "removes": lambda: cut(
        "chatml",
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"\s+"), "removed"), pre_tokenizers.ByteLevel()]),
    ),
    **{
        f"metaspace {scheme}": lambda scheme=scheme: metaspace(scheme)
        for scheme in ("always", "first", "never")
    },
    "ignores merges": lambda: changed("llama3", lambda d: d["model"].update(ignore_merges=True)),
    "ignores merges in pieces": lambda: changed("gemma", lambda d: d["model"].update(ignore_merges=True)),
    "composed with a normalized token": lambda: composed_with("<more>"),
    "a token that is composed": lambda: composed_with("e\u0301<more>"),
    "no tilde": lambda: changed("sp", without_tilde),
    "no byte fallback": lambda: changed("sp", lambda d: d["model"].update(byte_fallback=False)),
    "cuts long texts": lambda: changed(
        "chatml",
        lambda d: d.update(
            truncation={"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
        ),
    ),
}


# What gigatoken does not know or does otherwise, and what loses characters or adds some in ways of its own.
LEFT_TO_THE_REFERENCE = {
    *("single word", "compatible", "lower case", "stripped", "prefix", "words", "digits", "removes"),
    *("metaspace always", "no byte fallback", "one line end"),
    *("ignores merges in pieces", "no tilde", "a token that is composed"),
}


def engines(tokenizer):
    """The reference, and the fast engine where it is proven."""
    reference = Reference(tokenizer)
    engine, why = proven(reference, [])
    assert (engine is None) == (why is not None)
    return reference, engine


def assert_same(reference, engine, texts):
    """The engine makes of texts what the reference makes."""
    one, other = engine.spans(texts), reference.spans(texts)
    for part in ("ids", "offsets", "starts", "ends"):
        np.testing.assert_array_equal(getattr(one, part), getattr(other, part), part)
    np.testing.assert_array_equal(engine.ids(texts).ids, other.ids)


@pytest.mark.parametrize("make", MAKES)
def test_tokens_and_their_characters_are_the_same(make):
    reference, engine = engines(MAKES[make]())
    assert (engine is not None) == (make not in LEFT_TO_THE_REFERENCE)
    if engine is None:
        return

    @settings(max_examples=25, deadline=None)
    @given(TEXTS)
    def check(texts):
        assert_same(reference, engine, [*texts, *(f"{text}<|more|> {text}" for text in texts)])

    check()


KINDS = {"letters": pre_tokenizers.ByteLevel(add_prefix_space=False), "marks": by_pattern(MARKS_WITH_LETTERS)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [97, pytest.param(1, marks=pytest.mark.slow)])
def test_characters_that_the_libraries_take_for_different_things(kind, step):
    reference, fast = Reference(made := bridged(KINDS[kind])), Fast(Reference(made))
    edges = np.flatnonzero(np.diff(young(), prepend=False)).tolist()
    codes = {code for edge in edges for code in (edge - 1, edge, edge + 1)} | set(range(128, 0x33480, step))
    texts = [before + chr(code) for code in sorted(codes - set(SURROGATES)) for before in "aA1."]
    for first in range(0, len(texts), 40_000):
        assert_same(reference, fast, texts[first : first + 40_000])


def test_marks_that_python_does_not_know_are_asked_of_the_reference():
    reference, engine = engines(normalized("llama3", normalizers.NFC()))
    unknown = map(chr, np.flatnonzero(young_or_unknown()[:0x1F000]).tolist()[::41])
    assert_same(reference, engine, ["e\u0315\U0001e5ee\u0323 x", *(f"e\u0315{c}\u0323 x" for c in unknown)])


def test_the_library_is_made_anew_before_its_memory_of_texts_is_large(monkeypatch):
    monkeypatch.setattr("tunemill.stages.data.engines.fast.REMEMBERED_CHARACTERS", 40)
    reference, engine = engines(golden("chatml"))
    first = engine._fast._encode
    assert_same(reference, engine, ["Hello there, <|im_start|> you all", "abc " * 9])
    assert_same(reference, engine, ["Hello there, <|im_start|> you all", "abc " * 9])
    assert engine._fast._encode is not first


def test_texts_in_another_normal_form_are_asked_of_the_reference():
    reference, engine = engines(normalized("llama3", normalizers.NFC()))
    assert_same(reference, engine, ["e\u0301 a", "é", "\u1100\u1161 x", "plain"])
    reference, engine = engines(composed_with("<more>"))
    assert_same(reference, engine, ["a<more>\u0338 <more>\u0301", "<more>"])


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_nothing_and_empty_texts(name):
    reference, engine = engines(golden(name))
    assert_same(reference, engine, [])
    assert_same(reference, engine, ["", "a", "", ""])


@pytest.mark.parametrize(
    ("tokenizer", "reason"),
    [
        (Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?")), "what it does to a text"),  # noqa: S106
        (
            Tokenizer(models.Unigram([("a", -1.0), ("?", -2.0)], 1, byte_fallback=False)),
            "what it does to a text",
        ),
        (
            Tokenizer.from_file(str(GOLDEN.parents[2] / "examples/quickstart/model/tokenizer.json")),
            "gigatoken does not know it: ",
        ),
    ],
)
def test_other_tokenizers_are_left_to_the_reference_with_a_reason(tokenizer, reason):
    engine, why = proven(Reference(tokenizer), [])
    assert engine is None
    assert why.startswith(reason) and "\n" not in why


def test_a_library_whose_characters_were_not_compared_is_left_to_the_reference(monkeypatch):
    monkeypatch.setattr(tokenizers, "__version__", "0.24.1")
    assert proven(Reference(golden("sp")), [])[1] is None
    engine, why = proven(Reference(golden("chatml")), [])
    assert engine is None and "0.24.1 is installed" in why


def test_special_tokens_that_are_text_are_left_to_the_reference():
    reference = Reference(golden("chatml"), plain=True)
    assert proven(reference, []) == (None, "what looks like a special token is text here")
    assert len(reference.ids(["<|im_start|>"]).ids) > 1


def test_a_difference_is_seen_while_the_engine_is_used():
    checked = Checked(Fast(Reference(golden("chatml"))), Reference(golden("llama3")))
    with pytest.raises(DifferentError, match="other tokens of 'Hello there'"):
        checked.ids(["Hello there"])
    one_in_a_hundred = Checked(Fast(Reference(golden("chatml"))), Reference(golden("llama3")))
    alike = [""] * 100
    one_in_a_hundred.ids(alike)
    one_in_a_hundred.spans(["", "Hello there", ""])
    with pytest.raises(DifferentError):
        one_in_a_hundred.spans([""] * 97 + ["Hello there"])


def test_the_work_is_done_again_with_the_reference():
    events, used = [], []

    def work(engine, traced):
        used.append((engine.name, traced))
        if engine.name == "gigatoken":
            raise DifferentError("it makes other tokens of 'x'")
        return len(engine.ids(["Hello"]).ids)

    reference = Reference(golden("chatml"))
    assert with_engine("auto", reference, [], Report(events.append), work) == len(
        reference.ids(["Hello"]).ids
    )
    assert used == [("gigatoken", True), ("tokenizers", False)]
    (log,) = (event["message"] for event in events if event["type"] == "log")
    assert log.startswith(
        "all rows are tokenized again, by tokenizers and without short cuts: it makes other"
    )
    (summary,) = (event["metrics"] for event in events if event["type"] == "summary")
    assert summary == {"engine": "tokenizers", "engine_reason": "it makes other tokens of 'x'"}


def test_the_reference_alone_where_it_is_asked_for():
    used = []
    with_engine(
        "tokenizers",
        Reference(golden("chatml")),
        [],
        Report(lambda _: None),
        lambda *given: used.append(given),
    )
    assert [(engine.name, traced) for engine, traced in used] == [("tokenizers", False)]


def test_what_a_tokenizer_puts_around_a_text_is_told_apart_from_the_text():
    tokenizer = golden("chatml")
    ids = {token: tokenizer.token_to_id(token) for token in ("<|im_start|>", "<|im_end|>")}
    tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A <|im_end|>", pair=None, special_tokens=list(ids.items())
    )
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=8)
    reference = Reference(tokenizer)
    assert (reference.opening, reference.closing) == ([ids["<|im_start|>"]], [ids["<|im_end|>"]])
    assert len(reference.ids(["Hello there, you all"]).ids) > 3
    assert Reference(golden("gemma")).opening and not Reference(golden("gemma")).closing


def test_the_battery_has_what_tokenizers_disagree_about():
    texts = battery(special_tokens(golden("chatml")))
    together = "".join(texts)
    assert {*range(0x80), *range(0x80, 0xC0), *range(0xC2, 0xF5)} <= set(together.encode())
    assert texts == battery(special_tokens(golden("chatml")))
    assert "" in texts and max(map(len, texts)) >= 20_000 and "a<|im_start|>b" in texts
    assert all(kind in together for kind in ("\u0301", "\u200d", "\ufeff", "\r\n", "  ", "\x00"))
