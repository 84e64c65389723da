"""Where rows that are longer than a sequence are cut, so that their end is trained on."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
# A token by itself has nothing before it that predicts it.
PREDICTED = 2


class Pieces(NamedTuple):
    """Pieces of rows, in order: the index of each one's row, and its tokens `start` to `end` of that row."""

    row: Int64s
    start: Int64s
    end: Int64s


def pieces(lengths: Int64s, limit: int, shortest: int) -> Pieces:
    """Rows of these lengths in pieces of `limit` tokens and a rest.

    A rest of fewer than `shortest` tokens, which would be left out, takes the missing ones from the piece before.
    Where that would become too short itself it keeps them, and the rest repeats them.
    """
    counts = np.maximum(1, -(-lengths // limit))
    row = np.repeat(np.arange(len(lengths)), counts)
    start = (np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)) * limit
    end = np.minimum(start + limit, lengths[row])
    least = min(limit, max(PREDICTED, shortest))
    rests = np.flatnonzero((start > 0) & (end - start < least))
    start[rests] = end[rests] - least
    shared = rests[start[rests] - start[rests - 1] >= least]
    end[shared - 1] = start[shared]
    return Pieces(row, start, end)
