"""Two models on the same rows: by how much their means differ, and whether that is more than noise."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tunemill.stages.evaluation.statistics.bootstrap import bootstrap
from tunemill.stages.evaluation.statistics.detectable import detectable_mean, detectable_share
from tunemill.stages.evaluation.statistics.intervals import is_binary
from tunemill.stages.evaluation.statistics.mcnemar import mcnemar
from tunemill.stages.evaluation.statistics.normal import two_sided
from tunemill.stages.evaluation.statistics.sign_flips import sign_flips
from tunemill.stages.evaluation.statistics.units import Floats, Groups, units_of

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Comparison:
    """Means `one` and `other` over the same rows; `difference` is other - one, between `low` and `high`.

    `higher` and `lower` count the rows on which the other one's value is so. `p` is two-sided. `detectable` is the
    smallest difference that four of five such comparisons would find. `low`, `high` and `detectable` are None where
    there are too few rows to say. `is_binary`: rows are right or wrong.
    """

    one: float
    other: float
    difference: float
    low: float | None
    high: float | None
    p: float
    detectable: float | None
    rows: int
    groups: int | None
    higher: int
    lower: int
    is_binary: bool
    method: str
    confidence: float

    @property
    def is_noise(self) -> bool:
        """Whether a model compared with itself may well differ as much."""
        return self.p >= 1 - self.confidence

    def as_json(self) -> dict[str, Any]:
        """All of it, and whether the difference is inside the noise."""
        return {**asdict(self), "inside_the_noise": self.is_noise}


def compare(
    ones: Sequence[float] | Floats,
    others: Sequence[float] | Floats,
    groups: Groups | None = None,
    confidence: float = CONFIDENCE,
    weights: Sequence[float] | None = None,
) -> Comparison:
    """Compare two models by row: values of the one and of the other, in the same order, at least one of each.

    Values that are all 0 or 1 are compared by McNemar's exact test (mid-p), others by turning the signs of the
    differences, with a bootstrap of them for the interval. `groups`: rows of one group are not independent of each
    other, so their signs turn together and they are drawn together. `weights`: means are sum(weight * value) /
    sum(weight). Raises ValueError where the lengths differ.
    """
    ones_n, others_n = np.asarray(ones, dtype=np.float64), np.asarray(others, dtype=np.float64)
    if len(ones_n) != len(others_n):
        raise ValueError(f"{len(ones_n)} rows are compared with {len(others_n)}")
    off_n = others_n - ones_n
    units = units_of(off_n, groups, weights)
    is_alone = len(units) == len(off_n)
    higher, lower, rows = int(np.sum(off_n > 0)), int(np.sum(off_n < 0)), len(off_n)
    low: float | None
    high: float | None
    is_share = weights is None and is_binary(ones_n) and is_binary(others_n)
    if is_alone and is_share:
        method, p = "McNemar, exact, mid-p", mcnemar(higher, lower)
        low, high = _of_shares(higher, lower, rows, confidence)
        detectable = detectable_share(rows, (higher + lower) / rows, confidence)
    else:
        method = "sign flips" if is_alone else "sign flips of groups"
        p = sign_flips(units.totals)
        if len(units) < 2:
            low = high = None
        elif is_share and (higher, lower) in ((0, 0), (rows, 0), (0, rows)):
            # Drawn again, groups that all differ alike do so each time: each counts as one row.
            count = len(units)
            low, high = _of_shares(count if higher else 0, count if lower else 0, count, confidence)
        else:
            low, high = bootstrap(units, confidence)
        detectable = detectable_mean(units, confidence)
    return Comparison(
        one=units_of(ones_n, groups, weights).mean,
        other=units_of(others_n, groups, weights).mean,
        difference=units.mean,
        low=low,
        high=high,
        p=p,
        detectable=detectable,
        rows=rows,
        groups=None if is_alone else len(units),
        higher=higher,
        lower=lower,
        is_binary=is_share,
        method=method,
        confidence=confidence,
    )


def _of_shares(higher: int, lower: int, rows: int, confidence: float) -> tuple[float, float]:
    """An interval of the difference of two paired shares.

    Source: Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of binomial proportions based on
    paired data".
    """
    up, down = (higher + 1) / (rows + 2), (lower + 1) / (rows + 2)
    half = two_sided(confidence) * math.sqrt((up + down - (up - down) ** 2) / (rows + 2))
    return max(-1.0, up - down - half), min(1.0, up - down + half)
