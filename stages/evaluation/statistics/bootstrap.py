"""An interval of a mean, by drawing units again."""

import math

import numpy as np

from tunemill.stages.evaluation.statistics.normal import NORMAL, two_sided_student
from tunemill.stages.evaluation.statistics.units import Floats, Units

SEED = 20150401
# Draws of a unit, in all: as many resamples as that allows, between these bounds.
DRAWS = 10**8
FEWEST, MOST = 999, 4999
AT_ONCE = 10**6


def bootstrap(units: Units, confidence: float) -> tuple[float, float]:
    """The bias-corrected and accelerated interval of the weighted mean, from K units drawn with replacement.

    K is at least 2. The resamples are the same each time. The level is widened for few units as Student's t is for the
    mean of normal values: without it ten units would be held to tell more than they do.

    Sources: Efron 1987, "Better bootstrap confidence intervals"; the widening, Hesterberg 2015, "What teachers should
    know about the bootstrap", section 5.
    """
    units = _with_weight(units)
    count, mean = len(units), units.mean
    means_r = np.sort(_resampled(units))
    below = (np.sum(means_r < mean) + np.sum(means_r <= mean)) / (2 * len(means_r))
    if not 0 < below < 1:
        return mean, mean
    bias, skew = NORMAL.inv_cdf(float(below)), _acceleration(units)
    wide = two_sided_student(confidence, count - 1) * math.sqrt(count / (count - 1))
    ends = []
    for z in (-wide, wide):
        bent = 1 - skew * (bias + z)
        level = NORMAL.cdf(bias + (bias + z) / bent) if bent > 0 else float(z > 0)
        ends.append(float(np.quantile(means_r, level)))
    return min(ends), max(ends)


def _with_weight(units: Units) -> Units:
    has_weight = units.weights > 0
    return Units(units.totals[has_weight], units.weights[has_weight])


def _resampled(units: Units) -> Floats:
    """[R] means of as many units, drawn with replacement."""
    count = len(units)
    resamples = min(MOST, max(FEWEST, DRAWS // count))
    draw = np.random.default_rng(SEED)
    at_once = max(1, AT_ONCE // count)
    found = []
    for first in range(0, resamples, at_once):
        picked_rk = draw.integers(count, size=(min(at_once, resamples - first), count), dtype=np.int32)
        found.append(units.totals[picked_rk].sum(axis=1) / units.weights[picked_rk].sum(axis=1))
    means_r: Floats = np.concatenate(found)
    return means_r


def _acceleration(units: Units) -> float:
    """How fast the error of the mean changes with the mean, from leaving out each unit in turn."""
    without_k = (units.totals.sum() - units.totals) / (units.weights.sum() - units.weights)
    off_k = without_k.mean() - without_k
    square = float(np.sum(off_k**2))
    return float(np.sum(off_k**3)) / (6 * square**1.5) if square > 0 else 0.0
