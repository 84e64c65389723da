"""Rows into sequences of a fixed capacity: best fit decreasing, on the histogram of the lengths.

Rows of one length are alike, and so are packs with the same room left. Lengths are taken from the longest
down; as many rows as there are go at once into the packs with the least room that still holds them. The work
grows with the number of different lengths, not with the number of rows.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]


class Content(NamedTuple):
    """What is in each pack of a group: `times` rows of `length` tokens, and before them `rest`."""

    length: int
    times: int
    rest: "Content | None"


@dataclass(frozen=True)
class Packs:
    """Rows of pack i: `rows[offsets[i]:offsets[i + 1]]`, indices into the lengths that were packed."""

    rows: Int64s
    offsets: Int64s

    def __len__(self) -> int:
        return len(self.offsets) - 1


def pack(lengths: Int64s, capacity: int, seed: int, *, in_order: bool = False) -> Packs:
    """Every row in exactly one pack of at most `capacity` tokens; the same seed gives the same packs.

    Packs, and the rows in a pack, are in random order; with `in_order` both go by the rows' own order, as far
    as packing allows. Lengths must lie between 1 and `capacity`.
    """
    assert len(lengths) == 0 or (lengths.min() >= 1 and lengths.max() <= capacity), "rows must fit"
    groups = _pack_histogram(np.bincount(lengths, minlength=1).tolist(), capacity)
    rng = np.random.default_rng(seed)
    rows, sizes = _deal(
        groups, lengths, np.arange(len(lengths)) if in_order else rng.permutation(len(lengths))
    )
    number = np.repeat(np.arange(len(sizes)), sizes)
    if in_order:
        first = np.minimum.reduceat(rows, np.cumsum(sizes) - sizes) if len(sizes) else sizes
        order = np.lexsort((rows, first[number]))
        pack_order = np.argsort(first)
    else:
        pack_order = rng.permutation(len(sizes))
        place = np.empty_like(pack_order)
        place[pack_order] = np.arange(len(sizes))
        order = np.lexsort((rng.random(len(rows)), place[number]))
    return Packs(rows[order], np.concatenate([[0], np.cumsum(sizes[pack_order])]))


def one_each(rows: int) -> Packs:
    """Every row a sequence of its own, in order."""
    return Packs(np.arange(rows), np.arange(rows + 1))


def _pack_histogram(counts: list[int], capacity: int) -> list[tuple[int, Content]]:
    """`counts[n]` rows have n tokens. Returns groups of packs with the same content: (packs, content)."""
    groups: list[list[tuple[int, Content]]] = [[] for _ in range(capacity + 1)]
    # Bit r is set where there are packs with room for r more tokens.
    rooms = 0
    for length in range(len(counts) - 1, 0, -1):
        left = counts[length]
        rest: Content | None
        while left:
            room = _lowest_bit_from(rooms, length)
            opened = room < 0
            if opened:
                room, packs, rest = capacity, left, None
            else:
                packs, rest = groups[room].pop()
            each = min(room // length, left)
            used = min(packs, left // each)
            left -= used * each
            after = room - each * length
            groups[after].append((used, Content(length, each, rest)))
            rooms |= 1 << after
            if rest is not None and used < packs:
                groups[room].append((packs - used, rest))
            if not opened and not groups[room]:
                rooms &= ~(1 << room)
    return [group for same_room in groups for group in same_room]


def _lowest_bit_from(bits: int, start: int) -> int:
    """The lowest set bit at `start` or above, -1 if there is none."""
    above = bits >> start
    return start + (above & -above).bit_length() - 1 if above else -1


def _deal(groups: list[tuple[int, Content]], lengths: Int64s, order: Int64s) -> tuple[Int64s, Int64s]:
    """Give every place in the packs a row of its length, rows of one length in the given order.

    Returns the rows pack by pack, and how many are in each pack.
    """
    by_length = order[np.argsort(lengths[order], kind="stable")]
    next_row = np.concatenate([[0], np.cumsum(np.bincount(lengths, minlength=1))]).tolist()
    rows: list[Int64s] = [np.zeros(0, np.int64)]
    sizes: list[Int64s] = [np.zeros(0, np.int64)]
    for packs, content in groups:
        columns = []
        item: Content | None = content
        while item is not None:
            first, taken = next_row[item.length], packs * item.times
            next_row[item.length] += taken
            columns.append(by_length[first : first + taken].reshape(packs, item.times))
            item = item.rest
        table = np.concatenate(columns, axis=1)
        rows.append(table.ravel())
        sizes.append(np.full(packs, table.shape[1], np.int64))
    return np.concatenate(rows), np.concatenate(sizes)
