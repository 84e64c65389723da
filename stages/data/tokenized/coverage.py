"""How well a tokenizer's vocabulary covers the rows: tokens for what it does not know, and tokens it uses at all."""

import json
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from tunemill.stages.data.rows.quality import Figure

# Bytes from here on are parts of characters that are no ASCII.
FIRST_PART = 0x80


class Coverage:
    """Counts each token of a vocabulary. Memory is one number for each token, whatever the rows are."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        known = tokenizer.get_vocab(with_added_tokens=True)
        self.counts: npt.NDArray[np.int64] = np.zeros(max(known.values(), default=0) + 1, np.int64)
        self.tokens = len(known)
        self.unknown = unknown_token(tokenizer)
        self.single_bytes = single_bytes(known)

    def add(self, ids: npt.NDArray[np.int32]) -> None:
        """Count the tokens of some rows, as one array. Ids beyond the vocabulary count as nothing."""
        size = len(self.counts)
        self.counts += np.bincount(ids, minlength=size)[:size]

    def figures(self) -> list[Figure]:
        """Tokens that stand for what the vocabulary lacks, and how much of it the rows use."""
        total = int(self.counts.sum())
        unknown = 0 if self.unknown is None else int(self.counts[self.unknown])
        parts = int(self.counts[self.single_bytes].sum())
        return [
            Figure("tokens for text that the vocabulary lacks", unknown, total, "unknown_tokens"),
            Figure("tokens that are one byte of a character", parts, total, "byte_tokens"),
            Figure("tokens of the vocabulary that occur", int((self.counts > 0).sum()), self.tokens),
        ]


def unknown_token(tokenizer: Tokenizer) -> int | None:
    """The id of the token for unknown text, where the model has one."""
    model = tokenizer.model
    if type(model).__name__ != "Unigram":
        token = getattr(model, "unk_token", None)
        return None if not token else tokenizer.token_to_id(token)
    number = json.loads(tokenizer.to_str())["model"].get("unk_id")
    return None if number is None else int(number)


def single_bytes(vocabulary: Mapping[str, int]) -> list[int]:
    """Ids of the tokens that are one byte of a character that is no ASCII."""
    fallback = {f"<0x{byte:02X}>" for byte in range(FIRST_PART, 256)}
    if fallback <= vocabulary.keys():
        return [vocabulary[token] for token in sorted(fallback)]
    characters = byte_characters()
    return [vocabulary[token] for token in characters] if set(characters) <= vocabulary.keys() else []


def byte_characters() -> list[str]:
    """How byte-level tokenizers write the bytes from 0x80: as themselves, or behind U+0100 where those do not show.

    Source: `bytes_to_unicode` of GPT-2's encoder.
    """
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte if byte in shown else 0x100 + hidden.index(byte)) for byte in range(FIRST_PART, 256)]
