"""The loss of a reward model against values derived by hand, and its gradient."""

import math
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError

from tunemill.stages.models.rewards_body import ScoredPair, collate_rewards
from tunemill.stages.training.pairs_body import count_pairs
from tunemill.stages.training.reward.body import loss_of
from tunemill.stages.training.reward.config import RewardConfig
from tunemill.stages.training.reward.loss import reward_loss


def test_the_loss_of_two_pairs_by_hand() -> None:
    chosen, rejected = torch.tensor([1.0, 0.5]), torch.tensor([1.0, 0.5 - math.log(3)])
    # sigmoid(0) = 1/2, sigmoid(log 3) = 3/4.
    expected = [math.log(2), math.log(4 / 3)]
    assert reward_loss(chosen, rejected, 0.0).tolist() == pytest.approx(expected)
    centered = reward_loss(chosen, rejected, 0.1).tolist()
    assert centered == pytest.approx([expected[0] + 0.1 * 4, expected[1] + 0.1 * (1 - math.log(3)) ** 2])


def test_scores_far_apart_have_a_finite_loss() -> None:
    far = torch.tensor([200.0, -200.0], requires_grad=True)
    loss = reward_loss(far, -far, 0.0)
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([0, 400]) and far.grad is not None and far.grad.isfinite().all()


@pytest.mark.parametrize("centering", [0.0, 0.3])
def test_the_gradient_is_that_of_the_loss(centering: float) -> None:
    torch.manual_seed(0)
    chosen, rejected = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda c, r: reward_loss(c, r, centering), (chosen, rejected))


def test_what_is_said_of_a_batch_is_summed() -> None:
    scores = torch.tensor([[3.0], [1.0], [2.0], [2.0]])
    batch = {"input_ids": torch.zeros(4, 3, dtype=torch.long), "attention_mask": torch.ones(4, 3)}
    parts = loss_of(RewardConfig(learning_rate=1), lambda **_: SimpleNamespace(logits=scores), batch)
    assert count_pairs(batch) == {"pairs": 2}
    assert {name: float(total) for name, (total, _) in parts.metrics.items()} == {
        "accuracy": 1, "margin": 0, "mean_reward": 4,
    }  # fmt: skip
    expected = -math.log(1 / (1 + math.exp(-1))) - math.log(1 / (1 + math.e))
    assert float(parts.totals["pairs"]) == pytest.approx(expected)


def test_padding_is_the_token_by_which_the_model_knows_it() -> None:
    pairs = [ScoredPair(*(torch.tensor(ids, dtype=torch.int32).numpy() for ids in ([4, 5, 6], [7])))]
    batch = collate_rewards(pairs, padding=2)
    assert batch["input_ids"].tolist() == [[4, 5, 6], [7, 2, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_one_score_is_what_pairs_are_compared_by() -> None:
    assert RewardConfig(learning_rate=1, num_labels=1).head.labels == 1
    with pytest.raises(
        ValidationError, match="2: which answer of a pair is better is learnt from the difference"
    ):
        RewardConfig(learning_rate=1, num_labels=2)
