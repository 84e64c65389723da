"""Intervals against figures that scipy and closed forms give, and how often they hold what is true."""

import math

import numpy as np
import pytest

from tunemill.stages.evaluation.statistics.intervals import interval
from tunemill.stages.evaluation.statistics.normal import two_sided, two_sided_student
from tunemill.stages.evaluation.statistics.units import units_of

SKEWED = [
    0.1, 0.4, 0.35, 2.2, 0.9, 0.05, 0.6, 1.4, 0.3, 0.75, 0.2, 0.15, 3.1, 0.5, 0.45, 0.85, 0.25, 1.1, 0.65, 0.55,
]  # fmt: skip
GROUPS = [0] * 2 + [1] * 5 + [2] + [3] * 4 + [4] * 3 + [5] * 5


@pytest.mark.parametrize(
    ("right", "rows", "confidence", "low", "high"),
    [  # scipy.stats.binomtest(right, rows).proportion_ci(confidence, "wilson")
        (182, 200, 0.95, 0.8622342812, 0.9423125511),
        (0, 10, 0.95, 0.0, 0.2775327999),
        (10, 10, 0.95, 0.7224672001, 1.0),
        (1, 3, 0.95, 0.0614919447, 0.7923403992),
        (30, 40, 0.9, 0.6240270595, 0.8442962161),
    ],
)
def test_a_share_has_wilsons_interval(right, rows, confidence, low, high):
    found = interval([True] * right + [False] * (rows - right), confidence=confidence)
    assert (found.method, found.rows, found.confidence) == ("wilson", rows, confidence)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


def test_a_mean_has_the_interval_that_scipys_bootstrap_gives_at_the_widened_level():
    """scipy.stats.bootstrap(method="BCa", n_resamples=199999) at 2 * Phi(t * sqrt(20 / 19)) - 1 = 0.96824."""
    found = interval(SKEWED)
    assert (found.method, found.rows) == ("bootstrap", 20)
    assert (found.low, found.high) == pytest.approx((0.4875, 1.255), abs=0.03)
    assert interval(SKEWED) == found, "the same draws each time"


def test_rows_of_a_group_are_drawn_together():
    """The same of six groups, as pairs of sums and sizes."""
    found = interval(SKEWED, GROUPS)
    assert (found.method, found.rows) == ("bootstrap over groups", 20)
    assert (found.low, found.high) == pytest.approx((0.38, 1.2067), abs=0.03)
    assert interval(SKEWED, list(range(20))) == interval(SKEWED) == interval(SKEWED, [None] * 20)


def test_a_weighted_mean_is_of_all_weights():
    units = units_of([1.0, 3.0], weights=[3.0, 1.0])
    assert units.mean == 1.5
    heavy = interval([1.0, 2.0, 4.0, 5.0], weights=[1, 1, 1, 0])
    light = interval([1.0, 2.0, 4.0])
    assert (heavy.low, heavy.high) == (light.low, light.high), "a row without weight says nothing"


def test_groups_that_are_all_right_count_once_each():
    assert interval([1] * 40, [row // 10 for row in range(40)]).low == interval([1] * 4).low
    assert interval([1] * 40, ["one"] * 40) is None
    assert interval([0.5]) is None
    same = interval([0.5, 0.5, 0.5])
    assert (same.low, same.high) == (0.5, 0.5)


@pytest.mark.parametrize("values", [[], [math.nan, 1.0], [math.inf, 0.0]])
def test_nothing_and_what_is_no_number_have_no_mean(values):
    with pytest.raises(ValueError, match=r"no values|not a finite number"):
        interval(values)


def test_quantiles_are_those_of_the_distributions():
    assert two_sided(0.95) == pytest.approx(1.959963985)
    for freedom, expected in (
        (3, 3.182446),
        (5, 2.570582),
        (9, 2.262157),
        (30, 2.042272),
    ):  # scipy.stats.t.ppf
        assert two_sided_student(0.95, freedom) == pytest.approx(expected, abs=0.005)


@pytest.mark.slow  # 25 s
@pytest.mark.parametrize("size", [20, pytest.param(50, marks=pytest.mark.exhaustive)])
def test_intervals_hold_what_is_true_as_often_as_they_say(size):
    draw = np.random.default_rng(size)

    def held(make, true):
        found = [interval(*make()) for _ in range(1000)]
        return np.mean([one.low <= true <= one.high for one in found])

    def in_groups():
        chance = draw.beta(2, 2, size=size)
        return (draw.random((size, 5)) < chance[:, None]).ravel(), np.repeat(range(size), 5).tolist()

    assert 0.93 <= held(lambda: (draw.normal(size=size),), 0) <= 0.97
    assert 0.92 <= held(lambda: (draw.exponential(size=size),), 1) <= 0.97
    assert 0.93 <= held(in_groups, 0.5) <= 0.97
