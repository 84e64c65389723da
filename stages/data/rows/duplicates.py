"""Rows with the same tokens and labels: only the first of them is kept."""

from collections.abc import Callable
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from tunemill.stages.data.rows.token_rows import Bools, TokenRows


def first_of_each(rows: TokenRows) -> Bools:
    """Where a row is the first of those with its tokens and labels."""
    return first_of_equal(_hashes(rows), lambda one, other: _same(rows, one, other))


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


def _hashes(rows: TokenRows) -> npt.NDArray[np.uint64]:
    digests = (_hash(rows, row) for row in range(len(rows)))
    return np.fromiter(digests, np.uint64, len(rows))


def _hash(rows: TokenRows, row: int) -> int:
    digest = blake2b(rows.ids(row).tobytes(), digest_size=8)
    digest.update(rows.labels(row).tobytes())
    return int.from_bytes(digest.digest(), "little")


def _same(rows: TokenRows, one: int, other: int) -> bool:
    return np.array_equal(rows.ids(one), rows.ids(other)) and np.array_equal(
        rows.labels(one), rows.labels(other)
    )
