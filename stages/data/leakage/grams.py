"""Sequences of words as 64-bit hashes, in NumPy."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

GRAM = 8
"""Words in a sequence. A row of fewer words is one sequence, of all of them."""
UNKNOWN = 0
"""The number of every word that no held-out row has."""
FACTOR = np.uint64(0x9E3779B97F4A7C15)

Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Words:
    """The words of some rows as numbers, one row after the other: row i has `numbers[offsets[i]:offsets[i + 1]]`."""

    numbers: Int64s
    offsets: Int64s

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Int64s:
        """How many words each row has."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class Grams:
    """Sequences of words: the hash of each, the row that it is in, its first word (in `Words.numbers`), its length."""

    hashes: UInt64s
    rows: Int64s
    starts: Int64s
    lengths: Int64s


def grams_of(words: Words) -> Grams:
    """All sequences of the rows, those of a short row being the row."""
    nothing = np.zeros(0, np.int64)
    parts = [(np.zeros(0, np.uint64), nothing, nothing, nothing)]
    row = np.repeat(np.arange(len(words)), words.lengths)
    ends = words.offsets[1:][row]
    length_of_row = words.lengths[row]
    for length, hashes in hashed(words.numbers, range(1, GRAM + 1)):
        starts = np.arange(len(hashes))
        fits = starts + length <= ends[: len(hashes)]
        if length < GRAM:
            fits &= length_of_row[: len(hashes)] == length
        chosen = np.flatnonzero(fits)
        parts.append((hashes[chosen], row[chosen], chosen, np.full(len(chosen), length)))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.lexsort((columns[2], columns[1]))
    return Grams(*(column[order] for column in columns))


def hashed(numbers: Int64s, lengths: Sequence[int]) -> Iterator[tuple[int, UInt64s]]:
    """For each of these lengths, in rising order, the hash of the sequence that begins at each word."""
    mixed = _mixed(numbers.astype(np.uint64))
    total = np.zeros(len(mixed), np.uint64)
    for length in range(1, max(lengths, default=0) + 1):
        if length > len(mixed):
            return
        total = total[: len(mixed) - length + 1] * FACTOR + mixed[length - 1 :]
        if length in lengths:
            yield length, _mixed(total ^ np.uint64(length))


def whole_rows(words: Words) -> UInt64s:
    """A hash of all words of each row."""
    if len(words.numbers) == 0:
        return np.zeros(len(words), np.uint64)
    place = np.arange(len(words.numbers)) - np.repeat(words.offsets[:-1], words.lengths)
    parts = _mixed(_mixed(words.numbers.astype(np.uint64)) + place.astype(np.uint64) * FACTOR)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(parts, dtype=np.uint64)])
    return _mixed(sums[words.offsets[1:]] - sums[words.offsets[:-1]] + words.lengths.astype(np.uint64))


def _mixed(values: UInt64s) -> UInt64s:
    """Numbers spread over all 64 bits (the finalizer of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
