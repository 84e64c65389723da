"""Figures of preferences by hand."""

import math

import pytest

from tunemill.stages.evaluation.preferences.figures import (
    AnswerScore,
    figures_of_judged,
    figures_of_pairs,
    ordered_rightly,
)

# Tokens, log probability, that of the reference, divergence.
CHOSEN = [AnswerScore(2, -2.0, -4.0, 0.2), AnswerScore(4, -8.0, -6.0, 0.4), AnswerScore(1, -3.0, -3.0, 0.0)]
REJECTED = [AnswerScore(1, -3.0, -2.0, 0.1), AnswerScore(2, -6.0, -7.0, 0.2), AnswerScore(1, -3.0, -3.0, 0.0)]


def test_pairs() -> None:
    assert figures_of_pairs(CHOSEN, REJECTED) == pytest.approx(
        {
            # The second pair's chosen answer is longer and less likely as a whole; equal ones count one half.
            "accuracy": 1.5 / 3,
            "margin": (1.0 - 2.0 + 0.0) / 3,
            "accuracy_per_token": 2.5 / 3,
            "margin_per_token": (-1.0 + 3.0 + (-2.0 + 3.0) + 0.0) / 3,
            "reward_accuracy": 1.5 / 3,
            "reward_margin": ((2.0 + 1.0) + (-2.0 - 1.0) + 0.0) / 3,
            "reward_chosen": 0.0,
            "reward_rejected": 0.0,
            "kl": 0.9 / 11,
            "perplexity": math.exp(13 / 7),
        }
    )


def test_answers_that_are_judged_by_themselves() -> None:
    # Rewards: 2, -2, 0 of the desirable ones, -1, 1, 0 of the others; right are 3 of 9 and then 1 + 1, one is even.
    found = figures_of_judged(CHOSEN, REJECTED)
    assert found == pytest.approx(
        {
            "reward_desirable": 0.0,
            "reward_undesirable": 0.0,
            "reward_accuracy": (3 + 0 + 1.5) / 9,
            "reward_margin": 0.0,
            "kl": 0.9 / 11,
            "perplexity": math.exp(13 / 7),
        }
    )
    assert figures_of_judged(CHOSEN[:1], []) == pytest.approx(
        {"reward_desirable": 2.0, "kl": 0.1, "perplexity": math.e}
    )
    assert figures_of_judged([], REJECTED[:1]) == pytest.approx({"reward_undesirable": -1.0, "kl": 0.1})


def test_a_model_beside_itself_is_even() -> None:
    same = [AnswerScore(2, -2.0, -2.0, 0.0), AnswerScore(1, -9.0, -9.0, 0.0)]
    assert figures_of_pairs(same, same[::-1])["reward_accuracy"] == 0.5
    assert figures_of_judged(same[:1], same[1:])["reward_accuracy"] == 0.5
    assert ordered_rightly([1.0, 2.0], [0.0, 1.5]) == 0.75
