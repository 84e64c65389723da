"""Advantages against values that were computed by hand."""

import numpy as np
import pytest

from tunemill.stages.training.online.advantages import EPSILON, advantages

NAN = np.nan
# Two groups of three, two functions.
REWARDS = np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0], [5.0, 1.0], [5.0, 1.0], [5.0, 1.0]])
WEIGHTS = np.array([1.0, 0.5])
ROOT_THIRD = 1 / np.sqrt(3)


def test_each_completion_is_compared_with_its_group():
    found = advantages(REWARDS, WEIGHTS, 3)
    # Sums 1, 1, 0: mean 2/3, deviation of a sample sqrt(1/3). The other group is level.
    expected = np.array([1 / 3, 1 / 3, -2 / 3]) / (ROOT_THIRD + EPSILON)
    assert found.values_n == pytest.approx([*expected, 0, 0, 0])
    assert found.rewards_n.tolist() == [1, 1, 0, 5.5, 5.5, 5.5]
    assert found.spread_n == pytest.approx([ROOT_THIRD] * 3 + [0] * 3)


def test_what_advantages_are_divided_by():
    none = advantages(REWARDS, WEIGHTS, 3, scale="none")
    assert none.values_n == pytest.approx([1 / 3, 1 / 3, -2 / 3, 0, 0, 0])
    batch = advantages(REWARDS, WEIGHTS, 3, scale="batch")
    deviation = np.std([1, 1, 0, 5.5, 5.5, 5.5], ddof=1)
    assert batch.values_n == pytest.approx(none.values_n / (deviation + EPSILON))


def test_each_reward_is_compared_by_itself_before_they_are_added():
    found = advantages(REWARDS, WEIGHTS, 3, aggregation="normalize_then_sum")
    first = np.array([2 / 3, -1 / 3, -1 / 3]) / (ROOT_THIRD + EPSILON)
    second = np.array([-2 / 3, 4 / 3, -2 / 3]) / (2 * ROOT_THIRD + EPSILON)
    summed = np.array([*(first + 0.5 * second), 0, 0, 0])
    expected = (summed - summed.mean()) / (summed.std(ddof=1) + EPSILON)
    assert found.values_n == pytest.approx(expected)


@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
def test_what_nobody_judges_counts_nothing(aggregation):
    rewards = np.array([[1.0, NAN], [0.0, NAN], [NAN, NAN], [2.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
    found = advantages(rewards, WEIGHTS, 3, aggregation=aggregation)
    assert found.values_n[2] == 0 and np.isnan(found.rewards_n[2])
    assert np.isfinite(found.values_n).all()
    assert found.values_n[0] == pytest.approx(-found.values_n[1])
    assert found.values_n[0] > 0 > found.values_n[1]
    nothing = advantages(np.full((3, 1), NAN), np.ones(1), 3, aggregation=aggregation)
    assert nothing.values_n.tolist() == [0, 0, 0]
