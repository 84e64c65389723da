"""The ways of cutting a text into words before merging that llama.cpp has a name for, and how one is recognised.

Facts of llama.cpp's src/llama-vocab.cpp (v0.5.0, which node-llama-cpp 3.22.1 brings), in the spelling of tokenizers.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_APOSTROPHES = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_OTHERS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LETTERS = r"|[^\r\n\p{L}\p{N}]?\p{L}+"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Each expression cuts what the one before has left, and keeps what lies between its matches.
SPLITS: Mapping[str, tuple[str, ...]] = {
    "llama-bpe": (f"{_APOSTROPHES}{_LETTERS}|\\p{{N}}{{1,3}}{_OTHERS}",),
    "smaug-bpe": (f"{_APOSTROPHES}{_LETTERS}|\\p{{N}}{{1,3}}{_OTHERS}",),
    "qwen2": (f"{_APOSTROPHES}{_LETTERS}|\\p{{N}}{_OTHERS}",),
    "gpt-2": (GPT2,),
    "smollm": (r"\p{N}", GPT2),
    "gpt-4o": (_CASED,),
    # The one that knows nothing of apostrophes: many a tokenizer with an expression of its own does as it does.
    "deepseek-coder": (
        r"[\r\n]",
        r"\s?\p{L}+",
        r"\s?\p{P}+",
        "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
        r"\p{N}",
    ),
    "tekken": (_TEKKEN,),
}
# What stands for a space in pieces, and the special tokens of a phi3 behind which white space counts.
SPACE = "\u2581"
UNSTRIPPED = frozenset({"<unk>", "<s>", "<|endoftext|>"})
# A word that is a token is taken as it is, without merging.
WHOLE_WORDS = frozenset({"llama-bpe", "tekken"})


def expressions_of(cuts: Sequence[Mapping[str, Any]]) -> tuple[str, ...] | None:
    """The expressions by which a tokenizer.json cuts bytes into words; None where it cuts in another way."""
    found: list[str] = []
    for cut in cuts:
        kind = cut["type"]
        if kind == "Split" and cut.get("behavior") == "Isolated" and not cut.get("invert"):
            pattern = cut["pattern"]
            found.append(pattern["Regex"] if "Regex" in pattern else re.escape(pattern["String"]))
        elif kind == "Digits" and cut.get("individual_digits"):
            found.append(r"\p{N}")
        elif kind == "ByteLevel" and not cut.get("add_prefix_space"):
            found += [GPT2] if cut.get("use_regex", True) else []
        else:
            return None
    return tuple(found)


def same_expression(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether expressions are the same up to how they are spelled."""
    return [_plain(text) for text in one] == [_plain(text) for text in other]


def _plain(text: str) -> str:
    spelled = text.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", _APOSTROPHES).replace(
        r"\s+(?!\S)|\s+$", r"\s+(?!\S)"
    )
    return spelled.replace("++", "+").replace("?+", "?").removesuffix(r"|\s+")
