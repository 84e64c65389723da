"""Rows into sequences of a fixed capacity: best fit decreasing, on the histogram of the lengths.

Rows of one length are alike, and so are packs with the same room left. Lengths are taken from the longest
down; as many rows as there are go at once into the packs with the least room that still holds them. The work
grows with the number of different lengths, not with the number of rows.
"""

from bisect import bisect_right
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]


class Content(NamedTuple):
    """What is in each pack of a group: `times` rows of `length` tokens, and before them `rest`; `rows` in all."""

    length: int
    times: int
    rest: "Content | None"
    rows: int


@dataclass(frozen=True)
class Packs:
    """Rows of pack i: `rows[offsets[i]:offsets[i + 1]]`, indices into the lengths that were packed."""

    rows: Int64s
    offsets: Int64s

    def __len__(self) -> int:
        return len(self.offsets) - 1


def pack(
    lengths: Int64s,
    capacity: int,
    seed: int,
    *,
    in_order: bool = False,
    max_rows: int | None = None,
    group_size: int | None = None,
) -> Packs:
    """Every row in exactly one pack of at most `capacity` tokens; the same seed gives the same packs.

    Packs, and the rows in a pack, are in random order; with `in_order` both go by the rows' own order, as far
    as packing allows. A pack holds at most `max_rows` rows. With `group_size` the rows are packed that many at a
    time: no pack holds rows of two groups. Lengths must lie between 1 and `capacity`.
    """
    assert len(lengths) == 0 or (lengths.min() >= 1 and lengths.max() <= capacity), "rows must fit"
    rng = np.random.default_rng(seed)
    dealt = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    for first in range(0, len(lengths), group_size or max(len(lengths), 1)):
        part = lengths[first : first + group_size] if group_size else lengths
        groups = _pack_histogram(np.bincount(part, minlength=1).tolist(), capacity, max_rows)
        turns = np.arange(len(part)) if in_order else rng.permutation(len(part))
        rows_of_part, sizes_of_part = _deal(groups, part, turns)
        dealt.append((rows_of_part + first, sizes_of_part))
    rows = np.concatenate([rows_of_part for rows_of_part, _ in dealt])
    sizes = np.concatenate([sizes_of_part for _, sizes_of_part in dealt])
    number = np.repeat(np.arange(len(sizes)), sizes)
    if in_order:
        first_rows = np.minimum.reduceat(rows, np.cumsum(sizes) - sizes) if len(sizes) else sizes
        order = np.lexsort((rows, first_rows[number]))
        pack_order = np.argsort(first_rows)
    else:
        pack_order = rng.permutation(len(sizes))
        place = np.empty_like(pack_order)
        place[pack_order] = np.arange(len(sizes))
        order = np.argsort(place[number] + rng.random(len(rows)))
    return Packs(rows[order], np.concatenate([[0], np.cumsum(sizes[pack_order])]))


def pack_in_sequence(
    lengths: Int64s, capacity: int, *, max_rows: int | None = None, group_size: int | None = None
) -> Packs:
    """Packs of neighbouring rows, in order: a row opens a new pack when the last one has no room for it.

    `max_rows`, `group_size` and what is asked of the lengths are as in `pack`.
    """
    assert len(lengths) == 0 or (lengths.min() >= 1 and lengths.max() <= capacity), "rows must fit"
    ends = np.cumsum(lengths).tolist()
    offsets = [0]
    while (first := offsets[-1]) < len(ends):
        limit = len(ends)
        if max_rows is not None:
            limit = min(limit, first + max_rows)
        if group_size is not None:
            limit = min(limit, (first // group_size + 1) * group_size)
        before = ends[first - 1] if first else 0
        # A row has a token at least, so no pack reaches further than `capacity` rows.
        offsets.append(bisect_right(ends, before + capacity, first, min(limit, first + capacity)))
    return Packs(np.arange(len(ends)), np.array(offsets, np.int64))


def one_each(rows: int) -> Packs:
    """Every row a sequence of its own, in order."""
    return Packs(np.arange(rows), np.arange(rows + 1))


def _pack_histogram(counts: list[int], capacity: int, max_rows: int | None) -> list[tuple[int, Content]]:
    """`counts[n]` rows have n tokens. Returns groups of packs with the same content: (packs, content)."""
    groups: list[list[tuple[int, Content]]] = [[] for _ in range(capacity + 1)]
    full: list[tuple[int, Content]] = []
    most = capacity if max_rows is None else max_rows
    # Bit r is set where there are packs with room for r more tokens and for one more row.
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
            before = rest.rows if rest else 0
            each = min(room // length, left, most - before)
            used = min(packs, left // each)
            left -= used * each
            after = room - each * length
            content = Content(length, each, rest, before + each)
            if content.rows < most:
                groups[after].append((used, content))
                rooms |= 1 << after
            else:
                full.append((used, content))
            if rest is not None and used < packs:
                groups[room].append((packs - used, rest))
            if not opened and not groups[room]:
                rooms &= ~(1 << room)
    return full + [group for same_room in groups for group in same_room]


def _lowest_bit_from(bits: int, start: int) -> int:
    """The lowest set bit at `start` or above, -1 if there is none."""
    above = bits >> start
    return start + (above & -above).bit_length() - 1 if above else -1


def _deal(groups: list[tuple[int, Content]], lengths: Int64s, order: Int64s) -> tuple[Int64s, Int64s]:
    """Give every place in the packs a row of its length, rows of one length in the given order.

    Returns the rows pack by pack, and how many are in each pack.
    """
    # Of small integers numpy sorts 16 bits far faster than 64.
    narrow = np.uint16 if lengths.max(initial=0) < 1 << 16 else np.int64
    by_length = order[np.argsort(lengths[order].astype(narrow), kind="stable")]
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
