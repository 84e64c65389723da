"""The order of rows, that of the `datasets` library for the same seed."""

import numpy as np
import numpy.typing as npt


def shuffled(rows: int, seed: int) -> npt.NDArray[np.int64]:
    """A permutation of row numbers, the one that `datasets.shuffle(seed)` draws."""
    return np.random.default_rng(seed).permutation(rows)
