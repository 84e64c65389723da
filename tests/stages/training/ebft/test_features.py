"""Rewards and loss terms of EBFT by hand."""

from types import SimpleNamespace

import pytest
import torch

from tunemill.stages.errors import UserError
from tunemill.stages.training.ebft.features_body import (
    anchors,
    block_mask,
    distance_to_answer,
    feature_advantages,
    feature_rewards,
    features_of,
    layers_of,
    pooled,
    whitened,
)
from tunemill.stages.training.ebft.rewards_body import likeness

# Two completions of one prompt: along the answer, and at right angles to it. Lengths say nothing.
MADE = torch.tensor([[[3.0, 0.0], [0.0, 2.0]]])
ANSWER = torch.tensor([[5.0, 0.0]])


def test_likeness_to_the_answer_is_rewarded_and_likeness_to_the_others_is_not():
    rewards, alike, among = feature_rewards(MADE, ANSWER, 1.0, 1.0)
    assert (
        rewards.tolist() == [[2.0, 0.0]] and alike.tolist() == [[1.0, 0.0]] and among.tolist() == [[0.0, 0.0]]
    )
    twins = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    rewards, _, among = feature_rewards(twins, ANSWER, 1.0, 0.5)
    assert among.tolist() == [[0.5, 0.5, 0.0]]
    assert rewards.tolist() == [[2 - 0.5, 2 - 0.5, 0.0]]
    alone, _, among = feature_rewards(MADE[:, :1], ANSWER, 1.0, 1.0)
    assert alone.tolist() == [[2.0]] and among.tolist() == [[0.0]]


@pytest.mark.parametrize("use_whitening", [False, True])
def test_features_that_are_no_numbers_are_told(use_whitening):
    made = torch.tensor([[[float("inf"), 0.0], [0.0, 2.0]]])
    config = SimpleNamespace(use_whitening=use_whitening)
    with pytest.raises(UserError, match=r"round 4: .* are no finite numbers"):
        likeness(config, made, ANSWER, 3)


def test_what_the_rewards_make_small_is_the_distance_of_the_mean():
    # (1, 0) and (0, 1) have the mean (.5, .5), and the answer is (1, 0).
    assert distance_to_answer(MADE, ANSWER).tolist() == pytest.approx([0.5])
    assert distance_to_answer(MADE[:, :1], ANSWER).tolist() == pytest.approx([0.0])


def test_whitened_features_keep_their_lengths_among_themselves():
    made = torch.tensor([[[2.0, 0.0], [1.0, 0.0]]])
    rewards, alike, among = feature_rewards(made, ANSWER, 1.0, 1.0, unit=False)
    assert alike.tolist() == [[1.0, 1.0]] and among.tolist() == [[2.0, 2.0]]
    assert rewards.tolist() == [[-2.0, -2.0]]
    # Mean (1.5, 0), answer (5, 0).
    assert distance_to_answer(made, ANSWER, unit=False).tolist() == [12.25]


def test_advantages_by_each_estimator():
    rewards = torch.tensor([[1.0, 2.0, 6.0]])
    assert feature_advantages(rewards, "rloo").tolist() == [pytest.approx([1 - 4, 2 - 3.5, 6 - 1.5])]
    # Mean 3; spread sqrt((4 + 1 + 9) / 2).
    spread = 7**0.5 + 1e-4
    normed = feature_advantages(rewards, "group_norm")
    assert normed.tolist() == [pytest.approx([-2 / spread, -1 / spread, 3 / spread])]
    assert torch.equal(feature_advantages(rewards, "reinforce"), rewards)
    assert torch.equal(feature_advantages(rewards[:, :1], "rloo"), rewards[:, :1])


def test_features_are_pooled_without_padding():
    states = torch.arange(12.0).reshape(1, 6, 2)
    mask = torch.tensor([[1, 1, 1, 1, 1, 0]])
    assert pooled(states, mask, "last_token").tolist() == [[8.0, 9.0]]
    assert pooled(states, mask, "mean_pooling").tolist() == [[4.0, 5.0]]
    assert pooled(states, mask, "completion_mean", torch.tensor([3])).tolist() == [[7.0, 8.0]]
    assert pooled(states, mask, "concat").tolist() == [[2.0, 3.0, 4.0, 5.0, 6.0, 7.0]]
    assert layers_of([0.25, 0.5, 0.75], 32) == [8, 16, 24] and layers_of([0.0, 0.25, 1.0], 2) == [0, 1, 2]


def test_no_layer_outweighs_another():
    shallow, deep = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[0.0, 500.0]]])
    assert torch.allclose(features_of([shallow, deep]), torch.tensor([[[0.6, 0.8, 0.0, 1.0]]]))


def test_whitening_weighs_directions_alike():
    made = torch.tensor([[10.0, 0.0], [0.0, 0.1]])
    white, answer = whitened(made, torch.tensor([10.0, 0.1]))
    assert torch.allclose(white, torch.eye(2), atol=1e-5) and torch.allclose(answer, torch.ones(2), atol=1e-5)
    # A direction that no completion has weighs nothing.
    flat, answer = whitened(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([1.0, 5.0]))
    assert flat.isfinite().all() and answer[1].abs() < 1e-6


def test_blocks_see_their_context_and_themselves():
    starts = anchors(length=6, first=2, stride=2, generated=2)
    assert starts == [2, 4]
    sees = block_mask(6, starts, context=1, generated=2)
    assert sees.shape == (10, 10)
    assert sees[3].nonzero()[:, 0].tolist() == [0, 1, 2, 3]
    assert sees[6].nonzero()[:, 0].tolist() == [1, 6] and sees[7].nonzero()[:, 0].tolist() == [1, 6, 7]
    assert sees[9].nonzero()[:, 0].tolist() == [3, 8, 9]
