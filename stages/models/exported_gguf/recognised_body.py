"""Which of llama.cpp's ways of cutting texts a tokenizer has: by its expression, or by what it makes of many texts."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase

from tunemill.stages.errors import UserError
from tunemill.stages.models.exported_gguf.splits import SPLITS, WHOLE_WORDS, expressions_of, same_expression
from tunemill.stages.models.tokenizer_ids_body import FIXED_TEXT

# Texts that a tokenizer with an expression of its own is tried on, and tokens in each.
TEXTS, TOKENS = 2000, 12
PLACES = (
    "  two  spaces   three\t\ttabs\n\nlines\r\n end ",
    "I'm we'll DON'T it's o'Clock 'quoted' 're",
    "a1b22c333d4444 5,678.90 1998-03-03",
    "x=[1,2];//!?.. ...--- <tag> {y}:$5%",
    "\u00e9t\u00e9 na\u00efve \u4f60\u597d\u4e16\u754c \u0645\u0631\u062d\u0628\u0627 \u0440\u0443\u0441",
    "\U0001f600\U0001f680 CamelCaseWord UPPER lower mIxEd",
)


@dataclass(frozen=True)
class Recognised:
    """llama.cpp's name for it, and by what it was found: `expression`, `pieces`, or how many texts it agrees on."""

    name: str
    by: str


def recognise(words: PreTrainedTokenizerBase, described: Mapping[str, Any]) -> Recognised:
    """The way of cutting of a byte pair encoding over bytes. Raises UserError where llama.cpp has none such."""
    normalizer = described.get("normalizer")
    if normalizer is not None and normalizer["type"] != "NFC":
        raise UserError(
            f"pipeline.export: llama.cpp does not know this tokenizer: it changes texts by {normalizer['type']} before "
            f"it cuts them. Take gguf out of export."
        )
    cut = described.get("pre_tokenizer") or {"type": "Sequence", "pretokenizers": []}
    cuts = cut["pretokenizers"] if cut["type"] == "Sequence" else [cut]
    own = expressions_of(cuts)
    whole = bool(described["model"].get("ignore_merges"))
    if own is not None:
        for name, expressions in SPLITS.items():
            if (name in WHOLE_WORDS) == whole and same_expression(own, expressions):
                return Recognised(name, "expression")
    texts = list(sample_texts(words, TEXTS))
    wanted = [words.encode(text, add_special_tokens=False) for text in texts]
    for name in SPLITS:
        if (name in WHOLE_WORDS) == whole and _agrees(cutting(described["model"], name), texts, wanted):
            return Recognised(name, f"{len(texts)} texts")
    spelled = " then ".join(own) if own else cut["type"]
    raise UserError(
        f"pipeline.export: llama.cpp knows no tokenizer that cuts texts by {spelled}, and each of its own "
        f"({', '.join(SPLITS)}) makes other tokens of some texts. Take gguf out of export."
    )


def cutting(model: Mapping[str, Any], name: str) -> Tokenizer:
    """A byte pair encoding that cuts texts as llama.cpp does under that name. It knows no special tokens."""
    pairs = (pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model["merges"])
    merges = [(left, right) for left, right in pairs]
    made = Tokenizer(models.BPE(dict(model["vocab"]), merges, ignore_merges=name in WHOLE_WORDS))
    splits = [pre_tokenizers.Split(Regex(text), "isolated") for text in SPLITS[name]]
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return made


def _agrees(made: Tokenizer, texts: Sequence[str], wanted: Sequence[Sequence[int]]) -> bool:
    return all(made.encode(text).ids == ids for text, ids in zip(texts, wanted, strict=True))


def sample_texts(words: PreTrainedTokenizerBase, count: int) -> Iterator[str]:
    """Fixed texts, `count` tokens by themselves and twice, and as many texts of tokens side by side as they never come.

    No special token is among them.
    """
    special = set(words.added_tokens_decoder)
    plain = [words.decode([id_]) for id_ in range(len(words)) if id_ not in special]
    plain = [text for text in plain if "\ufffd" not in text]
    chosen = random.Random(0)  # noqa: S311  no secret
    marks = [words.decode([id_]) for id_ in special]
    fixed = FIXED_TEXT
    for mark in marks:
        fixed = fixed.replace(mark, " ")
    yield from (fixed, *PLACES)
    for text in plain if len(plain) <= count else chosen.sample(plain, count):
        yield from (text, text * 2, f"a{text}1", f" {text}'")
    for _ in range(count):
        text = "".join(chosen.choice(plain) for _ in range(TOKENS))
        if not any(mark in text for mark in marks):
            yield text
