"""Rows that occur twice: of those with the same tokens and labels the first is kept; and rows among others."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from tunemill.stages.data.rows.token_rows import Bools, Int32s, TokenRows

# Rows that are looked at between two releases of their pages.
RELEASE_EVERY = 1 << 14
# Tokens of a row, from its first to its last, that tell it from most others.
SAMPLED = 8
FACTOR = np.uint64(0x9E3779B97F4A7C15)


def first_of_each(rows: TokenRows) -> Bools:
    """Where a row is the first of those with its tokens and labels."""
    first = np.ones(len(rows), np.bool_)
    # Only rows that some other one may be equal to are read whole.
    _, kinds, counts = np.unique(_sampled(rows), return_inverse=True, return_counts=True)
    alike = np.flatnonzero(counts[kinds] > 1)
    some = rows.take(alike)
    first[alike] = first_of_equal(_hashes(some), lambda one, other: _same(some, one, other))
    return first


def first_of_equal(hashes: npt.NDArray[np.uint64], equal: Callable[[int, int], bool]) -> Bools:
    """Where an element is the first of its equals. Equal hashes find candidates, `equal` decides."""
    order = np.argsort(hashes, kind="stable")
    repeats = np.flatnonzero(hashes[order][1:] == hashes[order][:-1]) + 1
    first = np.ones(len(hashes), np.bool_)
    kept: list[int] = []
    for place in repeats.tolist():
        item, before = int(order[place]), int(order[place - 1])
        if not kept or hashes[kept[0]] != hashes[item]:
            kept = [before]
        if any(equal(item, other) for other in kept):
            first[item] = False
        else:
            kept.append(item)
    return first


def occurs_in(rows: TokenRows, others: TokenRows) -> Bools:
    """Where a row has the tokens of one of the others, whatever their labels."""
    own_kinds, kinds = _sampled(rows), _sampled(others)
    others = others.take(np.isin(kinds, own_kinds))
    digests = (_hash_of(others.ids(row)) for row in _all_of(others))
    hashes = np.fromiter(digests, np.uint64, len(others))
    order = np.argsort(hashes, kind="stable")
    hashes = hashes[order]
    found = np.zeros(len(rows), np.bool_)
    for row in np.flatnonzero(np.isin(own_kinds, kinds)).tolist():
        ids = rows.ids(row)
        own = np.uint64(_hash_of(ids))
        first, end = (int(np.searchsorted(hashes, own, side)) for side in ("left", "right"))
        found[row] = any(np.array_equal(ids, others.ids(int(other))) for other in order[first:end])
    return found


def cut_at(length: int, rows: TokenRows) -> TokenRows:
    """The first `length` tokens of each row. Counts of trained tokens stay those of the whole rows."""
    return replace(rows, length=np.minimum(rows.length, length))


def _all_of(rows: TokenRows) -> Iterator[int]:
    """The number of each row, and now and then the pages of those before it go out of memory."""
    for row in range(len(rows)):
        if row % RELEASE_EVERY == 0:
            rows.release()
        yield row
    rows.release()


def _sampled(rows: TokenRows) -> npt.NDArray[np.uint64]:
    """A number for each row, the same for rows with the same tokens: of its length and a few of them."""
    found = rows.length.astype(np.uint64)
    for chunk, of_chunk in rows.by_chunk():
        filled = of_chunk[rows.length[of_chunk] > 0]
        for part in range(SAMPLED):
            places = rows.start[filled] + (rows.length[filled] - 1) * part // (SAMPLED - 1)
            found[filled] = found[filled] * FACTOR + chunk.ids[places].astype(np.uint64)
    return found


def _hash_of(ids: Int32s) -> int:
    return int.from_bytes(blake2b(ids.tobytes(), digest_size=8).digest(), "little")


def _hashes(rows: TokenRows) -> npt.NDArray[np.uint64]:
    digests = (_hash(rows, row) for row in _all_of(rows))
    return np.fromiter(digests, np.uint64, len(rows))


def _hash(rows: TokenRows, row: int) -> int:
    digest = blake2b(rows.ids(row).tobytes(), digest_size=8)
    digest.update(rows.labels(row).tobytes())
    return int.from_bytes(digest.digest(), "little")


def _same(rows: TokenRows, one: int, other: int) -> bool:
    return np.array_equal(rows.ids(one), rows.ids(other)) and np.array_equal(
        rows.labels(one), rows.labels(other)
    )
