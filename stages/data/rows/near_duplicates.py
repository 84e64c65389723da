"""Rows that are nearly alike, by the sequences of tokens that they share (MinHash with one permutation).

Each row's sequences of SHINGLE tokens are hashed. Their hashes fall into BINS bins, and of each bin the smallest stays:
two rows agree in about as many bins as is the share of sequences that they have in common (Li, Owen and Zhang, 2012,
"One Permutation Hashing"). Only rows that agree in a whole band of bins are compared, each with two others at most.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tunemill.stages.data.rows.quality import Figure
from tunemill.stages.data.rows.token_rows import Bools, Int64s, TokenRows
from tunemill.stages.report import Report, Scalar

SHINGLE = 5
BINS, BAND = 64, 4
ALIKE = 0.8
"""Share of common bins from which on two rows are nearly alike."""
COMMON = 0.01
"""Sequences in more than this share of the rows say nothing, as those of a system message that all have."""
FEW = 20
"""As many rows may share a sequence in any case."""
SLOTS = 1 << 22
SHOWN = 20
TOKENS_AT_A_TIME = 1 << 20
EMPTY = np.uint32(0xFFFFFFFF)
FACTOR = np.uint64(0x9E3779B97F4A7C15)

UInt64s = npt.NDArray[np.uint64]
Signatures = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Shingles:
    """Hashes of some rows' sequences of tokens, and which row each is of, counted from the first of these rows."""

    hashes: UInt64s
    rows: Int64s


class Sketches:
    """Signatures of rows, for which all of them are read twice. 256 bytes a row, and 16 MiB."""

    def __init__(self, *parts: TokenRows) -> None:
        counts: npt.NDArray[np.int64] = np.zeros(SLOTS, np.int64)
        for rows in parts:
            for _, shingles in _blocks(rows):
                counts += np.bincount(_slot(shingles.hashes), minlength=SLOTS)
        total = sum(len(rows) for rows in parts)
        common = counts > max(FEW, COMMON * total)
        self.parts = [_signatures(rows, common) for rows in parts]


def near_figure(rows: TokenRows, names: Sequence[str], report: Report) -> Figure:
    """How many rows are nearly like an earlier one; shows the first. `names` are those of the datasets."""
    like = near_repeats(Sketches(rows).parts[0])
    found = np.flatnonzero(like >= 0)

    def place(row: int) -> tuple[str, int]:
        return names[rows.dataset[row] - 1], int(rows.source_row[row])

    pairs: list[Sequence[Scalar]] = [(*place(row), *place(int(like[row]))) for row in found[:SHOWN].tolist()]
    report.table("Rows that are nearly alike", ["dataset", "row", "like dataset", "like row"], pairs)
    return Figure(
        "rows nearly like another one (or just like it)", len(found), len(rows), "nearly_repeated_rows"
    )


def near_repeats(signatures: Signatures) -> Int64s:
    """For each row an earlier one that it is nearly like, or -1."""
    found = np.full(len(signatures), -1, np.int64)
    for hashes, filled in _bands(signatures):
        rows = np.flatnonzero(filled)
        rows = rows[np.argsort(hashes[rows], kind="stable")]
        if len(rows) < 2:
            continue
        starts = np.flatnonzero(np.concatenate([[True], hashes[rows][1:] != hashes[rows][:-1]]))
        first = np.repeat(starts, np.diff([*starts, len(rows)]))
        for place in (first, np.maximum(np.arange(len(rows)) - 1, first)):
            others = rows[place]
            alike = (others < rows) & (found[rows] < 0)
            alike[alike] = _similarity(signatures[rows[alike]], signatures[others[alike]]) >= ALIKE
            found[rows[alike]] = others[alike]
    return found


def nearly_among(signatures: Signatures, others: Signatures) -> Bools:
    """Which rows are nearly like one of the others."""
    found = np.zeros(len(signatures), np.bool_)
    for (own, filled), (theirs, known) in zip(_bands(signatures), _bands(others), strict=True):
        rows, candidates = np.flatnonzero(filled), np.flatnonzero(known)
        if not len(candidates):
            continue
        candidates = candidates[np.argsort(theirs[candidates], kind="stable")]
        ordered = theirs[candidates]
        sides: tuple[Literal["left", "right"], ...] = ("left", "right")
        for side in sides:
            place = np.searchsorted(ordered, own[rows], side=side) - (side == "right")
            place = np.clip(place, 0, len(ordered) - 1)
            same = ordered[place] == own[rows]
            pairs, matched = rows[same], candidates[place[same]]
            found[pairs] |= _similarity(signatures[pairs], others[matched]) >= ALIKE
    return found


def _blocks(rows: TokenRows) -> Iterator[tuple[Int64s, Shingles]]:
    """Numbers of rows, some at a time, with their shingles."""
    first, ends = 0, np.cumsum(rows.length)
    while first < len(rows):
        before = ends[first] - rows.length[first]
        end = 1 + int(np.searchsorted(ends, before + TOKENS_AT_A_TIME))
        numbers = np.arange(first, min(end, len(rows)))
        yield numbers, _shingles([rows.ids(number) for number in numbers.tolist()])
        rows.release()
        first = end


def _shingles(rows: list[npt.NDArray[np.int32]]) -> Shingles:
    """A row of fewer tokens than a shingle has is one of its own."""
    padded = [
        ids if len(ids) >= SHINGLE else np.pad(ids, (0, SHINGLE - len(ids)), constant_values=-1)
        for ids in rows
    ]
    lengths = np.array([len(ids) for ids in padded])
    flat = np.concatenate(padded).astype(np.uint64)
    total: UInt64s = np.zeros(len(flat) - SHINGLE + 1, np.uint64)
    for offset in range(SHINGLE):
        total = (total * FACTOR) ^ _mixed(
            flat[offset : len(flat) - SHINGLE + 1 + offset] + np.uint64(offset + 1)
        )
    # Sequences that go on into the next row are none.
    ends = np.cumsum(lengths)
    row = np.repeat(np.arange(len(rows)), lengths)[: len(total)]
    inside = np.arange(len(total)) + SHINGLE <= ends[row]
    return Shingles(_mixed(total[inside]), row[inside])


def _mixed(values: UInt64s) -> UInt64s:
    """Numbers spread over all 64 bits (the finalizer of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _slot(hashes: UInt64s) -> Int64s:
    slots: Int64s = (hashes % np.uint64(SLOTS)).astype(np.int64)
    return slots


def _signatures(rows: TokenRows, common: Bools) -> Signatures:
    signatures = np.full((len(rows), BINS), EMPTY, np.uint32)
    for numbers, shingles in _blocks(rows):
        rare = ~common[_slot(shingles.hashes)]
        hashes, row = shingles.hashes[rare], shingles.rows[rare]
        bins = (hashes >> np.uint64(64 - 6)).astype(np.int64)
        values = ((hashes >> np.uint64(22)) & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        np.minimum.at(signatures, (numbers[row], bins), values)
    return signatures


def _bands(signatures: Signatures) -> Iterator[tuple[UInt64s, Bools]]:
    """Of each band of bins a hash for each row, and whether the row has anything there."""
    for first in range(0, BINS, BAND):
        part = signatures[:, first : first + BAND]
        hashes = np.zeros(len(part), np.uint64)
        for column in part.T:
            hashes = _mixed(hashes * FACTOR + column.astype(np.uint64) + np.uint64(1))
        yield hashes, (part != EMPTY).any(axis=1)


def _similarity(some: Signatures, others: Signatures) -> npt.NDArray[np.float64]:
    """Share of the bins that either row has something in, in which both have the same."""
    either = ((some != EMPTY) | (others != EMPTY)).sum(axis=1)
    same = ((some == others) & (some != EMPTY)).sum(axis=1)
    shares: npt.NDArray[np.float64] = same / np.maximum(either, 1)
    return shares
