"""Positions that jump, so that short rows train those of a long context (PoSE)."""

import zlib
from collections.abc import Sequence

import numpy as np

from tunemill.stages.data.rows.mapped import Tokens

# The first part of a row has at least so many tokens, as in Axolotl.
FIRST = 2


def jumping_positions(ids: Tokens, *, context: int, chunks: int, before: Sequence[int], seed: int) -> Tokens:
    """Position of each token of a row: one more than that of the token before it, with a jump in front of each part.

    Parts begin before the tokens `before`, or are `chunks` of the same length. How far each jumps is drawn from `seed`
    and the row's tokens, so it is the same in each epoch; none ends beyond `context`.
    """
    starts = np.flatnonzero(np.isin(ids, before)) if before else np.arange(1, chunks) * (len(ids) // chunks)
    positions = np.arange(len(ids), dtype=np.int32)
    free = context - len(ids)
    random = np.random.default_rng([seed, zlib.crc32(np.ascontiguousarray(ids).tobytes())])
    for start in starts[starts >= FIRST]:
        jump = int(random.integers(0, free, endpoint=True))
        free -= jump
        positions[start:] += jump
    return positions
