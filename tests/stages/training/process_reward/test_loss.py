"""The loss of a process reward model against values derived by hand, and its gradient against differences."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tunemill.stages.training.process_reward.config import ProcessRewardConfig
from tunemill.stages.training.process_reward.loss import judged_steps, step_loss

WRONG, RIGHT, NONE = 0, 1, -100


def says(logits: Any) -> Any:
    """A model that says the same whatever it is asked."""
    return lambda **_inputs: SimpleNamespace(logits=logits)


def batch_of(labels: list[list[int]]) -> dict[str, Any]:
    return {
        "input_ids": torch.ones(len(labels), len(labels[0]), dtype=torch.long),
        "labels": torch.tensor(labels),
    }


def test_the_loss_of_three_steps_by_hand() -> None:
    # The head says right with a probability of .8 at the first token, .5 at the second, .1 at the last.
    logits = torch.tensor([[[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]]]).log().expand(2, 3, 2)
    batch = batch_of([[RIGHT, NONE, WRONG], [NONE, NONE, RIGHT]])
    parts = step_loss(says(logits), batch)
    assert float(parts.totals["steps"]) == pytest.approx(-math.log(0.8) - math.log(0.9) - math.log(0.1))
    assert judged_steps(batch) == {"steps": 3}
    right, counted = parts.metrics["accuracy"]
    assert (int(right), counted) == (2, "steps")
    assert tuple(parts.metrics) == ProcessRewardConfig.own_figures


def test_a_label_at_the_first_and_at_the_last_token_counts() -> None:
    # Shifted labels would lose one of them.
    logits = torch.tensor([[[0.0, 2.0], [0.0, 0.0], [3.0, 0.0]]])
    parts = step_loss(says(logits), batch_of([[RIGHT, NONE, WRONG]]))
    assert float(parts.totals["steps"]) == pytest.approx(math.log1p(math.exp(-2)) + math.log1p(math.exp(-3)))


def test_steps_that_are_not_judged_have_no_gradient() -> None:
    logits = torch.randn(2, 4, 2, requires_grad=True)
    parts = step_loss(says(logits), batch_of([[NONE, RIGHT, NONE, NONE], [NONE, NONE, NONE, WRONG]]))
    parts.totals["steps"].backward()
    assert logits.grad is not None
    touched = logits.grad.abs().sum(-1) > 0
    assert touched.tolist() == [[False, True, False, False], [False, False, False, True]]


def test_the_gradient() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    batch = batch_of([[2, NONE, 0], [NONE, 1, NONE]])
    assert torch.autograd.gradcheck(lambda given: step_loss(says(given), batch).totals["steps"], (logits,))
