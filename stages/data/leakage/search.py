"""Which held-out rows stand in rows that are trained on: as they are, with other line breaks, or inside of longer ones.

Of the held-out rows all sequences of words are kept, of the rows that are trained on only what they share with those.
So memory goes with the held-out rows, and some bytes for each row that is trained on. What many rows share tells
nothing of any of them: a system prompt or a template, which is left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tunemill.stages.data.leakage.grams import (
    UNKNOWN,
    Bools,
    Grams,
    Int64s,
    UInt64s,
    Words,
    grams_of,
    hashed,
    whole_rows,
)

ALIKE = 0.7
"""Share of a held-out row's own sequences that one row has to have. Source: the appendix on contamination of Chowdhery
et al. 2022, "PaLM: Scaling Language Modeling with Pathways"."""
CHARACTERS = 16
"""Shorter texts are found anywhere: so many characters have to be shared, unless whole rows are the same."""
FEW, COMMON, MANY = 5, 0.01, 100
"""A sequence in more than the share COMMON of the rows is a template's; in FEW rows none is, in more than MANY each."""
SLOTS = 1 << 24


@dataclass(frozen=True)
class Leak:
    """A held-out row, and the row that it stands in, both from 0, and which share of its own sequences that has.

    `first` and `end`: the longest shared part, in words of the held-out row. `whole`: both rows have the same words.
    """

    held_out: int
    trained: int
    share: float
    first: int
    end: int
    whole: bool


class Search:
    """Looks for held-out rows in rows that are trained on, some of these at a time.

    `sizes` are the characters of each word by its number.
    """

    def __init__(self, held: Words, sizes: Int64s) -> None:
        self._held, self._sizes = held, sizes
        self._grams: Grams = grams_of(held)
        self._known, self._number = np.unique(self._grams.hashes, return_inverse=True)
        self._lengths = np.unique(self._grams.lengths).tolist()
        self._slots = np.zeros(SLOTS, np.bool_)
        self._slots[_slot(self._known)] = True
        self._whole = whole_rows(held)
        self._rows = 0
        self._distinct = 0
        self._counts = np.zeros(len(self._known), np.int64)
        self._pairs: list[tuple[Int64s, Int64s]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
        self._same: dict[int, int] = {}
        self._seen: set[bytes] = set()

    def add(self, words: Words, marks: Sequence[bytes]) -> None:
        """Look through the next rows. Rows of equal `marks` are the same, and count once."""
        whole = whole_rows(words)
        for place in np.flatnonzero(np.isin(whole, self._whole)).tolist():
            self._same.setdefault(int(whole[place]), self._rows + place)
        fresh = np.zeros(len(words), np.bool_)
        for place, mark in enumerate(marks):
            if mark not in self._seen:
                self._seen.add(mark)
                fresh[place] = True
        self._distinct += int(fresh.sum())
        found, rows = self._hits(words)
        kept = fresh[rows]
        found, rows = found[kept], rows[kept]
        self._counts += np.bincount(found, minlength=len(self._known))
        rare = self._counts[found] <= MANY
        self._pairs.append((found[rare], rows[rare] + self._rows))
        self._rows += len(words)

    @property
    def rows(self) -> int:
        """How many were looked through."""
        return self._rows

    def _hits(self, words: Words) -> tuple[Int64s, Int64s]:
        """Numbers of known sequences, each with the row that it is in, once a row."""
        row = np.repeat(np.arange(len(words)), words.lengths)
        # How many words from here on are known ones of the same row.
        ends = words.offsets[1:][row]
        stops = np.where(words.numbers == UNKNOWN, np.arange(len(row)), len(row))
        known = np.minimum(np.minimum.accumulate(stops[::-1])[::-1], ends) - np.arange(len(row))
        parts: list[tuple[Int64s, Int64s]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
        for length, hashes in hashed(words.numbers, self._lengths):
            places = np.flatnonzero(known[: len(hashes)] >= length)
            places = places[self._slots[_slot(hashes[places])]]
            wanted = hashes[places]
            at = np.minimum(np.searchsorted(self._known, wanted), len(self._known) - 1)
            same = self._known[at] == wanted
            parts.append((at[same], row[places[same]]))
        found, rows = (np.concatenate(column) for column in zip(*parts, strict=True))
        pairs = np.unique(found * max(len(words), 1) + rows)
        return pairs // max(len(words), 1), pairs % max(len(words), 1)

    def leaks(self, alone: Bools | None = None) -> list[Leak]:
        """The held-out rows that were found, in their order, each in the row that has most of it.

        `alone`: the rows that are found by being the same as another one, however short or common; if not given, all.
        """
        found = {leak.held_out: leak for leak in self._near()}
        for row, whole in enumerate(self._whole.tolist()):
            length = int(self._held.lengths[row])
            if length and whole in self._same and (alone is None or alone[row]):
                found[row] = Leak(row, self._same[whole], 1.0, 0, length, True)
        return [found[row] for row in sorted(found)]

    def _common(self) -> Bools:
        """Which of the known sequences many different rows have, of those trained on or of those held out."""
        _, first = np.unique(self._whole, return_index=True)
        once = np.zeros(len(self._held), np.bool_)
        once[first] = True
        pairs = np.unique(self._number * max(len(self._held), 1) + self._grams.rows)
        numbers, rows = pairs // max(len(self._held), 1), pairs % max(len(self._held), 1)
        among_held = np.bincount(numbers[once[rows]], minlength=len(self._known))
        common: Bools = (self._counts > _border(self._distinct)) | (among_held > _border(len(first)))
        return common

    def _near(self) -> Iterator[Leak]:
        """For each held-out row the row with the largest share of its own sequences, the first of equal ones."""
        common = self._common()
        own = np.bincount(self._grams.rows[~common[self._number]], minlength=len(self._held))
        numbers, trained = (np.concatenate(column) for column in zip(*self._pairs, strict=True))
        rare = ~common[numbers]
        places, trained = self._places(numbers[rare], trained[rare])
        held = self._grams.rows[places]
        order = np.lexsort((places, trained, held))
        places, trained, held = places[order], trained[order], held[order]
        is_first = np.ones(len(places), np.bool_)
        is_first[1:] = (held[1:] != held[:-1]) | (trained[1:] != trained[:-1])
        heads = np.flatnonzero(is_first)
        tails = np.append(heads[1:], len(places))
        share = (tails - heads) / own[held[heads]]
        best: dict[int, int] = {}
        for pair in np.flatnonzero(share >= ALIKE).tolist():
            number = int(held[heads[pair]])
            if number not in best or share[pair] > share[best[number]]:
                best[number] = pair
        for number, pair in best.items():
            found = places[heads[pair] : tails[pair]]
            first, end = _longest(self._grams.starts[found], self._grams.lengths[found])
            if self._sizes[self._held.numbers[first:end]].sum() >= CHARACTERS:
                base = int(self._held.offsets[number])
                other = int(trained[heads[pair]])
                yield Leak(number, other, float(share[pair]), first - base, end - base, False)

    def _places(self, numbers: Int64s, trained: Int64s) -> tuple[Int64s, Int64s]:
        """Where in the held-out rows the sequences of these numbers stand, each as often as it does."""
        order = np.argsort(self._number, kind="stable")
        counts = np.bincount(self._number, minlength=len(self._known))
        firsts = np.concatenate([[0], np.cumsum(counts)])[:-1]
        times = counts[numbers]
        within = np.arange(int(times.sum())) - np.repeat(np.cumsum(times) - times, times)
        return order[np.repeat(firsts[numbers], times) + within], np.repeat(trained, times)


def _longest(begins: Int64s, lengths: Int64s) -> tuple[int, int]:
    """The longest stretch that sequences in order cover without a gap."""
    ends = begins + lengths
    breaks = np.flatnonzero(begins[1:] > ends[:-1]) + 1
    firsts, lasts = np.concatenate([[0], breaks]), np.append(breaks, len(begins)) - 1
    best = int(np.argmax(ends[lasts] - begins[firsts]))
    return int(begins[firsts[best]]), int(ends[lasts[best]])


def _border(rows: int) -> float:
    return min(max(FEW, COMMON * rows), MANY)


def _slot(hashes: UInt64s) -> Int64s:
    slots: Int64s = (hashes % np.uint64(SLOTS)).astype(np.int64)
    return slots
