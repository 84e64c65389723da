"""Comparisons in words."""

from dataclasses import replace

import pytest

from tunemill.stages.evaluation.statistics.comparison import compare
from tunemill.stages.evaluation.statistics.directions import better_of
from tunemill.stages.evaluation.statistics.verdict import verdict

CLOSE = compare([1] * 178 + [0] * 22, [1] * 170 + [0] * 8 + [1] * 12 + [0] * 10)


def test_a_difference_inside_the_noise_is_said_to_be_so():
    words = "0.91 against 0.89 over 200 rows: inside the noise (p = 0.38); from 0.062 on it would be seen"
    assert verdict(CLOSE) == words


def test_a_difference_that_is_none():
    same = verdict(compare([1, 0] * 50, [1, 0] * 50))
    assert same == "0.5 against 0.5 over 100 rows: the same on every row; from 0.066 on it would be seen"
    assert verdict(compare([1, 0], [1, 1])).endswith(
        "inside the noise (p = 0.50); too few rows to see any difference"
    )


@pytest.mark.parametrize(
    ("metric", "word"), [("exact_match", "better"), ("loss", "worse"), ("prediction_tokens", "higher")]
)
def test_which_way_is_better_hangs_on_the_metric(metric, word):
    far = compare([0] * 40, [1] * 20 + [0] * 20)
    said = verdict(far, better_of(metric))
    assert said == f"0.5 against 0 over 40 rows: {word} by 0.5 (0.311 to 0.641; p < 0.001)"
    back = compare([1] * 20 + [0] * 20, [0] * 40)
    opposite = {"better": "worse", "worse": "better", "higher": "lower"}[word]
    assert f": {opposite} by 0.5 (0.311 to 0.641; p < 0.001)" in verdict(back, better_of(metric))


def test_groups_and_a_difference_without_ends_are_named():
    grouped = verdict(replace(CLOSE, groups=1, p=0.01, low=None, high=None))
    assert grouped == "0.91 against 0.89 over 200 rows in 1 group: better by 0.02 (p = 0.010)"


@pytest.mark.parametrize(
    ("metric", "better"),
    [
        ("eval_loss", "lower"),
        ("kl", "lower"),
        ("teacher_kl", "lower"),
        ("rougeL", "higher"),
        ("rows", "neither"),
        ("days_off", "lower"),
    ],
)
def test_names_say_which_way_is_better(metric, better):
    assert better_of(metric) == better
