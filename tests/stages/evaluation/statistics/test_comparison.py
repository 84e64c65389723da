"""Paired comparisons against figures that scipy gives, and how often they warn of a model beside itself."""

import numpy as np
import pytest

from tunemill.stages.evaluation.statistics.comparison import compare
from tunemill.stages.evaluation.statistics.detectable import detectable_mean, detectable_share
from tunemill.stages.evaluation.statistics.mcnemar import mcnemar
from tunemill.stages.evaluation.statistics.sign_flips import sign_flips
from tunemill.stages.evaluation.statistics.units import units_of

DIFFERENCES = np.array([0.3, -0.1, 0.25, 0.4, -0.05, 0.6, 0.15, -0.2, 0.35, 0.1])


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    [  # 2 * scipy.stats.binom.cdf(fewer - 1, rows, .5) + scipy.stats.binom.pmf(fewer, rows, .5)
        (3, 9, 0.09228515625),
        (0, 5, 0.03125),
        (30, 12, 0.005401572654591),
        (1, 1, 1.0),
        (40, 61, 0.037066767438560),
        (0, 0, 1.0),
    ],
)
def test_rows_that_only_one_model_has_right_are_coins(better, worse, p):
    assert mcnemar(better, worse) == pytest.approx(p, abs=1e-12)
    if better + worse:
        assert sign_flips(np.array([1.0] * better + [-1.0] * worse)) == pytest.approx(p, abs=0.01)


def test_signs_are_turned_in_every_way_where_there_are_few():
    """scipy.stats.permutation_test gives 58 of 1024 choices at least as far, of which 16 are as far: 50 with half."""
    assert sign_flips(DIFFERENCES) == 50 / 1024
    assert sign_flips(np.zeros(4)) == 1.0
    assert sign_flips(np.array([1.0, 0.0])) == 0.5


def test_many_signs_are_drawn_and_give_what_students_test_gives():
    """scipy.stats.ttest_1samp of the same values: p = 0.00719."""
    values = np.random.default_rng(3).normal(0.15, 1, size=200)
    assert sign_flips(values) == pytest.approx(0.00719, abs=0.003)
    assert sign_flips(values) == sign_flips(values)


def test_a_comparison_of_shares():
    ones = [1] * 160 + [0] * 40
    others = [1] * 148 + [0] * 12 + [1] * 30 + [0] * 10
    found = compare(ones, others)
    assert (found.one, found.other, found.rows, found.groups) == (0.8, 0.89, 200, None)
    assert (found.higher, found.lower, found.method) == (30, 12, "McNemar, exact, mid-p")
    assert found.p == pytest.approx(0.0054016, abs=1e-6) and not found.is_noise
    # Bonett and Price: (31 - 13) / 202 and 1.96 * sqrt((44 / 202 - (18 / 202) ** 2) / 202) to each side.
    assert (found.low, found.high) == pytest.approx((0.025923, 0.152295), abs=1e-5)
    assert found.as_json()["inside_the_noise"] is False


def test_a_comparison_of_means_and_of_groups():
    found = compare(np.zeros(10), DIFFERENCES)
    assert (found.method, found.p) == ("sign flips", 50 / 1024)
    assert found.low < 0.18 < found.high and found.difference == pytest.approx(0.18)
    grouped = compare([0, 1] * 10, [1, 1] * 10, [row // 4 for row in range(20)])
    assert (grouped.method, grouped.groups) == ("sign flips of groups", 5)
    assert grouped.p == 1 / 32, "five groups of one mind, two choices of 32 as far, half of them counted"
    alone = compare([0, 1] * 10, [1, 1] * 10)
    assert alone.p == 2**-10, "as if each row were independent"
    one_group = compare([0.0, 0.5], [1.0, 0.7], ["a", "a"])
    assert (one_group.p, one_group.low, one_group.detectable) == (0.5, None, None)


def test_groups_that_all_differ_alike_count_as_one_row_each():
    same = compare([1, 1, 0, 0], [1, 1, 0, 0], ["a", "a", "b", "c"])
    three = compare([1, 0, 0], [1, 0, 0])
    assert same.groups == 3 and (same.low, same.high) == (three.low, three.high) and same.low < 0 < same.high
    better = compare([0] * 4, [1] * 4, ["a", "a", "b", "c"])
    three = compare([0] * 3, [1] * 3)
    assert (better.low, better.high) == (three.low, three.high) and better.low < 1
    worse = compare([1] * 4, [0] * 4, ["a", "a", "b", "c"])
    assert (worse.low, worse.high) == (-better.high, -better.low)


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(ValueError, match="2 rows are compared with 3"):
        compare([1, 0], [1, 0, 1])


@pytest.mark.parametrize(
    ("rows", "discordance", "expected"),
    [  # Connor's formula, solved by scipy.optimize.brentq
        (200, 0.1, 0.062276799),
        (1000, 0.2, 0.039573706),
        (500, 0.3, 0.068462862),
        # The share q with scipy.stats.binom.sf(4, 200, q) = 0.8: five rows of one mind are seen.
        (200, 0.0, 0.033376466),
    ],
)
def test_the_smallest_share_that_is_seen(rows, discordance, expected):
    assert detectable_share(rows, discordance) == pytest.approx(expected, abs=1e-7)


def test_the_smallest_mean_that_is_seen():
    # 2.8016 standard errors of the mean.
    units = units_of(DIFFERENCES)
    assert detectable_mean(units) == pytest.approx(2.801585 * DIFFERENCES.std(ddof=1) / np.sqrt(10), abs=1e-5)
    assert detectable_share(4, 0.5) is None, "four rows that all speak for one model are not enough"


def alike(draw, rows, share=0.3):
    """Two models that are alike: on so many of the rows one alone is right, whichever."""
    one = draw.random(rows) < 0.7
    other = np.where(draw.random(rows) < share, draw.random(rows) < 0.7, one)
    return one, other


def false_alarms(ps):
    return np.mean(np.array(ps) < 0.05)


def test_of_a_model_beside_itself_one_comparison_in_twenty_warns():
    draw = np.random.default_rng(15)
    pairs = [alike(draw, 200) for _ in range(1000)]
    binary = [mcnemar(int(np.sum(b & ~a)), int(np.sum(a & ~b))) for a, b in pairs]
    assert 0.04 <= false_alarms(binary) <= 0.06
    losses = [draw.lognormal(size=100) - draw.lognormal(size=100) for _ in range(1000)]
    assert 0.04 <= false_alarms([sign_flips(one, most=499) for one in losses]) <= 0.06
    # In groups of eight that a model has right or wrong together.
    grouped = [draw.normal(size=(25, 1)) + draw.normal(scale=0.3, size=(25, 8)) for _ in range(1000)]
    assert 0.04 <= false_alarms([sign_flips(one.sum(axis=1), most=499) for one in grouped]) <= 0.06
    # Were the rows of a group held to be independent, every other comparison would warn.
    assert false_alarms([sign_flips(one.ravel(), most=199) for one in grouped[:100]]) > 0.3


@pytest.mark.slow  # 35 s
def test_of_a_model_beside_itself_the_whole_comparison_warns_as_seldom():
    draw = np.random.default_rng(16)
    groups = [row // 5 for row in range(200)]

    def in_groups():
        shift = np.repeat(draw.random((40, 2)), 5, axis=0)
        return (draw.random((200, 2)) < shift).T

    kinds = {
        "binary": lambda: compare(*alike(draw, 400)),
        "binary in groups": lambda: compare(*in_groups(), groups),
        "continuous": lambda: compare(*draw.lognormal(size=(2, 60))),
        "continuous in groups": lambda: compare(*np.repeat(draw.normal(size=(2, 40)), 5, axis=1), groups),
    }
    for kind, one in kinds.items():
        assert 0.04 <= false_alarms([one().p for _ in range(2000)]) <= 0.06, kind


@pytest.mark.slow  # 10 s
@pytest.mark.parametrize(("rows", "discordance"), [(200, 0.1), (1000, 0.2)])
def test_a_difference_that_is_said_to_be_seen_is_seen_in_four_of_five(rows, discordance):
    draw = np.random.default_rng(17)
    for_one = (discordance + detectable_share(rows, discordance)) / 2
    seen = []
    for _ in range(2000):
        differ = draw.binomial(rows, discordance)
        better = draw.binomial(differ, for_one / discordance)
        seen.append(mcnemar(better, differ - better) < 0.05)
    assert 0.77 <= np.mean(seen) <= 0.85
