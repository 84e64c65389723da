"""Whether the mean of differences is other than 0, by turning signs around."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunemill.stages.evaluation.statistics.units import Floats

SEED = 19350101
# Up to so many units every choice of signs is tried.
ALL_OF = 13
# Signs drawn, in all: as many choices as that allows, between these bounds.
SIGNS = 10**8
FEWEST, MOST = 999, 9999
AT_ONCE = 10**6


def sign_flips(totals_k: Floats, most: int = MOST) -> float:
    """The two-sided p that the sum of K differences is 0, of independent units.

    Without a difference between two models, which of both a unit's difference is taken from is a fair coin, so each
    unit's sign may turn. What is as far from 0 as what was seen counts half (mid-p), as in `mcnemar`, which this is
    where every unit is one row that is right or wrong. At most `most` choices of signs are drawn, the same each time.

    Source: Fisher 1935, "The design of experiments", section 21.
    """
    moved_k = totals_k[totals_k != 0]
    seen = abs(float(moved_k.sum()))
    # What differs by rounding only is as far.
    close = 1e-9 * float(np.abs(moved_k).sum())
    if seen <= close:
        return 1.0
    is_complete = len(moved_k) <= ALL_OF
    choices = 2 ** len(moved_k) if is_complete else min(most, max(FEWEST, SIGNS // len(moved_k)))
    draw = np.random.default_rng(SEED)
    further = as_far = 0
    at_once = max(1, AT_ONCE // len(moved_k))
    for first in range(0, choices, at_once):
        numbers_c = np.arange(first, min(first + at_once, choices))
        if is_complete:
            signs_ck: NDArray[np.integer[Any]] = numbers_c[:, None] >> np.arange(len(moved_k)) & 1
        else:
            bits = np.frombuffer(draw.bytes(len(numbers_c) * len(moved_k) // 8 + 1), dtype=np.uint8)
            signs_ck = np.unpackbits(bits)[: len(numbers_c) * len(moved_k)].reshape(len(numbers_c), -1)
        sums_c = np.abs(2 * (signs_ck.astype(np.float64) @ moved_k) - moved_k.sum())
        further += int(np.sum(sums_c > seen + close))
        as_far += int(np.sum(np.abs(sums_c - seen) <= close))
    if is_complete:
        return (further + as_far / 2) / choices
    # What was seen is one of the choices.
    return (further + (as_far + 1) / 2) / (choices + 1)
