"""The `gigatoken` library: ids without characters, which are counted from the tokens' bytes.

A byte-level BPE neither adds nor drops a byte: its tokens' bytes one behind the other are the text's. One in the style
of SentencePiece writes a space as a character of its own, and may put one before a text; both are counted. Where the
bytes of a text's tokens are not as many as the text's, the reference says which characters they are. Texts with
characters that only one of the libraries knows are left to the reference altogether.
"""

import json
from collections.abc import Sequence
from typing import Any
from unicodedata import is_normalized

import numpy as np
import numpy.typing as npt
import tokenizers
from gigatoken import Tokenizer as Gigatoken
from tokenizers import Tokenizer

from tunemill.stages.data.engines.encoded import Encoded, Spanned, flat, other_tokens
from tunemill.stages.data.engines.reference import Reference
from tunemill.stages.data.engines.young import TOKENIZERS, holds, young, young_or_unknown
from tunemill.stages.data.rows.columns import offsets_of_lengths
from tunemill.stages.data.rows.token_rows import Int32s, Int64s

SPACE = "▁"
# gigatoken remembers each word it has seen: of words that are all different it keeps six bytes a character.
REMEMBERED_CHARACTERS = 50_000_000
SPACE_BYTES = SPACE.encode()
# What a tokenizer may do to a text before it is cut: normal form C changes no text that is in it already.
COMPOSED = {"type": "NFC"}
SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
PREFIX = {"type": "Prepend", "prepend": SPACE}
METASPACE = {"type": "Metaspace", "replacement": SPACE, "split": False}
# Ways to cut a text that drop nothing of it.
WHOLE = ("ByteLevel", "Digits", "Split", "Punctuation")


class UnfitError(Exception):
    """Why a tokenizer is none of those that the fast engine knows."""


class Fast:
    """Tokens by gigatoken, with the same characters as the reference.

    Raises UnfitError for a tokenizer whose characters cannot be counted, or that gigatoken does not know.
    """

    name = "gigatoken"

    def __init__(self, reference: Reference) -> None:
        self.description = reference.bare.to_str()
        """The tokenizer as a tokenizer.json."""
        self.reference = reference
        self.composed, self.spaced, self.prefixed = _rules(reference.bare)
        try:
            made = Gigatoken.from_json(self.description)
        except (RuntimeError, ValueError) as error:
            raise UnfitError(f"gigatoken does not know it: {str(error).splitlines()[0]}") from None
        self._encode = made.backend.encode
        self._remembered = 0
        installed = tokenizers.__version__
        if not self.spaced and not installed.startswith(f"{TOKENIZERS}."):
            raise UnfitError(
                f"which characters it knows is compared with tokenizers {TOKENIZERS}, and {installed} is installed"
            )
        # Pieces in the style of SentencePiece are not cut by kinds of characters.
        self.young = young_or_unknown() if self.composed else None if self.spaced else young()
        self.widths, self.openings = _widths(made.vocab, self.spaced)
        self.added = np.zeros(len(self.widths), np.bool_)
        self.added[list(reference.bare.get_added_tokens_decoder())] = True

    def ids(self, texts: Sequence[str]) -> Encoded:
        """Tokens of texts without BOS, EOS and the like."""
        self._remembered += sum(map(len, texts))
        if self._remembered > REMEMBERED_CHARACTERS:
            self._encode = Gigatoken.from_json(self.description).backend.encode
            self._remembered = 0
        return flat([self._ids(text) for text in texts])

    def _ids(self, text: str) -> npt.NDArray[Any]:
        """Tokens of a text, from the reference where the libraries may not see the same characters."""
        if self._is_foreign(text):
            return self.reference.ids([text]).ids
        return self._encode(text)

    def _is_foreign(self, text: str) -> bool:
        """Whether only one library knows a character of the text, or tokens appear in it once it is composed."""
        if self.young is None or text.isascii():
            return False
        return holds(text, self.young) or (self.composed and not is_normalized("NFC", text))

    def spans(self, texts: Sequence[str]) -> Spanned:
        """The tokens of `ids`, with their characters."""
        encoded = self.ids(texts)
        raw = [text.encode() for text in texts]
        bases = offsets_of_lengths(list(map(len, raw)))
        counts = np.diff(encoded.offsets)
        widths, prefixes = self._widths_of(encoded, texts)
        # All is counted from the beginning of the batch, as if it were one text.
        ends = np.cumsum(widths, dtype=np.int32)
        reached = _reached(ends, encoded.offsets)
        odd = (np.diff(reached) != np.diff(bases)) | self._changed(texts)
        if odd.any():
            widths[np.repeat(odd, counts)] = 0
            ends = np.cumsum(widths, dtype=np.int32)
            reached = _reached(ends, encoded.offsets)
            ends += np.repeat((bases - reached)[:-1], counts).astype(np.int32)
        ends -= np.repeat(bases[:-1].astype(np.int32), counts)
        spanned = Spanned(encoded.ids, encoded.offsets, ends - widths, ends)
        for index, (text, written) in enumerate(zip(texts, raw, strict=True)):
            if len(text) != len(written):
                _to_characters(spanned, index, written)
        if prefixes is not None:
            ends[prefixes] = np.maximum(ends[prefixes], spanned.starts[prefixes] + 1)
        for index in np.flatnonzero(odd).tolist():
            self._ask(spanned, index, texts[index])
        return spanned

    def _ask(self, spanned: Spanned, index: int, text: str) -> None:
        """Let the reference fill in the characters of one text's tokens."""
        known = self.reference.spans([text])
        row = slice(int(spanned.offsets[index]), int(spanned.offsets[index + 1]))
        if not np.array_equal(spanned.ids[row], known.ids):
            raise other_tokens(text)
        spanned.starts[row], spanned.ends[row] = known.starts, known.ends

    def _widths_of(self, encoded: Encoded, texts: Sequence[str]) -> tuple[Int32s, Int64s | None]:
        """How many bytes of the text each token is, and which tokens begin with a space that the text does not have."""
        widths = self.widths[encoded.ids]
        if not self.prefixed:
            return widths, None
        first = np.zeros(len(widths), np.bool_)
        if self.prefixed == "every":
            first[1:] = self.added[encoded.ids[:-1]]
        full = np.diff(encoded.offsets) > 0
        if self.prefixed == "first":
            full &= np.fromiter((not text.startswith(" ") for text in texts), np.bool_, len(texts))
        first[encoded.offsets[:-1][full]] = True
        prefixes = np.flatnonzero(first & ~self.added[encoded.ids] & self.openings[encoded.ids])
        widths[prefixes] -= 1
        return widths, prefixes

    def _changed(self, texts: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Texts that the tokenizer changes, or whose own characters look like its spaces."""
        changed = np.zeros(len(texts), np.bool_)
        for index, text in enumerate(texts):
            if text.isascii():
                continue
            changed[index] = self._is_foreign(text) or (self.spaced and SPACE in text)
        return changed


def _reached(ends: Int32s, offsets: Int64s) -> Int64s:
    """Where each row begins, and the last one ends, by where tokens end."""
    return np.where(offsets > 0, ends[offsets - 1], 0) if len(ends) else np.zeros(len(offsets), np.int64)


def _to_characters(spanned: Spanned, index: int, written: bytes) -> None:
    """Count a text's tokens in characters, not bytes. One that begins or ends within a character has all of it."""
    row = slice(int(spanned.offsets[index]), int(spanned.offsets[index + 1]))
    begins = (np.frombuffer(written, np.uint8) & 0xC0) != 0x80
    # Of each byte boundary, how many characters begin before it; what begins behind the end is the end.
    before = np.concatenate([[0], np.cumsum(begins), [begins.sum() + 1]])
    spanned.starts[row] = before[spanned.starts[row] + 1] - 1
    spanned.ends[row] = before[spanned.ends[row]]


def _rules(tokenizer: Tokenizer) -> tuple[bool, bool, str | None]:
    """Of a tokenizer: whether it brings texts into normal form C, whether it writes a space as SPACE, and before
    what another one is put: the "first" part of a text, or "every" one between special tokens.

    Raises UnfitError where something else is done to texts.
    """
    steps = _steps(tokenizer.normalizer, "normalizers")
    cuts = _steps(tokenizer.pre_tokenizer, "pretokenizers")
    composed = COMPOSED in steps
    if getattr(tokenizer.model, "ignore_merges", False) and not (cuts and cuts[-1]["type"] == "ByteLevel"):
        raise UnfitError("a whole text may be one of its tokens whatever its merges are")
    steps = [step for step in steps if step != COMPOSED]
    if cuts and cuts[-1]["type"] == "ByteLevel" and not cuts[-1]["add_prefix_space"] and not steps:
        if all(step["type"] in WHOLE for step in cuts):
            return composed, False, None
    elif cuts == [] and not composed and steps in ([SPACES], [PREFIX, SPACES]):
        return False, True, "every" if PREFIX in steps else None
    elif cuts in ([METASPACE | {"prepend_scheme": scheme}] for scheme in ("first", "never")) and not steps:
        return composed, True, "first" if cuts[0]["prepend_scheme"] == "first" else None
    raise UnfitError("what it does to a text before cutting it is none of the known ways")


def _steps(part: Any, name: str) -> list[dict[str, Any]]:
    """A part of a tokenizer as its tokenizer.json has it, one step after the other."""
    if part is None:
        return []
    described: dict[str, Any] = json.loads(part.__getstate__())
    return described[name] if described["type"] == "Sequence" else [described]


def _widths(vocabulary: dict[int, bytes], spaced: bool) -> tuple[Int32s, npt.NDArray[np.bool_]]:
    """How many bytes of a text each token is, and whether it begins with SPACE."""
    widths = np.zeros(max(vocabulary, default=-1) + 1, np.int32)
    openings = np.zeros(len(widths), np.bool_)
    for token, raw in vocabulary.items():
        widths[token] = len(raw.replace(SPACE_BYTES, b" ")) if spaced else len(raw)
        openings[token] = spaced and raw.startswith(SPACE_BYTES)
    return widths, openings
