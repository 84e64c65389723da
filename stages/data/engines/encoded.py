"""Tokens of a batch of texts, and what makes them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tunemill.stages.data.rows.columns import offsets_of_lengths
from tunemill.stages.data.rows.token_rows import Int32s, Int64s

# What goes the fast way goes the slow way too so often, to be compared.
CHECKED_EVERY = 100
SHOWN_CHARACTERS = 60


class DifferentError(ValueError):
    """The fast way and the slow way to tokens have made something else of the same row."""


def other_tokens(text: str) -> DifferentError:
    """The error for a text of which the fast engine makes other tokens than the reference."""
    return DifferentError(f"it makes other tokens of {text[:SHOWN_CHARACTERS]!r}")


@dataclass(frozen=True)
class Encoded:
    """Tokens of a batch of texts, flat: text i has those from `offsets[i]` to `offsets[i + 1]`."""

    ids: Int32s
    offsets: Int64s

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[Int32s]:
        return self.by_text(self.ids)

    def by_text(self, values: Int32s) -> Iterator[Int32s]:
        """Values of all tokens, text by text."""
        return (values[first:end] for first, end in pairwise(self.offsets.tolist()))


@dataclass(frozen=True)
class Spanned(Encoded):
    """Of each token also the characters of its text that it came from: its first, and the one after its last.

    A token of a part of a character has the whole of it.
    """

    starts: Int32s
    ends: Int32s


class Engine(Protocol):
    """What turns texts into tokens. All engines turn the same text into the same ones."""

    name: str

    def ids(self, texts: Sequence[str]) -> Encoded:
        """Tokens of texts without BOS, EOS and the like."""

    def spans(self, texts: Sequence[str]) -> Spanned:
        """The tokens of `ids`, with their characters."""


def flat(rows: Sequence[Sequence[int] | npt.NDArray[Any]]) -> Encoded:
    """Tokens of texts, one sequence of ids a text, as a batch."""
    offsets = offsets_of_lengths([len(row) for row in rows])
    ids = np.empty(int(offsets[-1]), np.int32)
    for row, first, end in zip(rows, offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        ids[first:end] = row
    return Encoded(ids, offsets)
