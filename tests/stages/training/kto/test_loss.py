"""The loss of KTO against values derived by hand, its gradient, and what is shown of a batch."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tunemill.stages.training.batch_shapes_body import batch_shape
from tunemill.stages.training.kto.body import count_rated, gone_of, loss_of, margins
from tunemill.stages.training.kto.config import KtoConfig
from tunemill.stages.training.kto.loss import kto_losses, share_of_kinds

CONFIG = KtoConfig(learning_rate=1, rl_beta=0.5, kto_desirable_weight=2, kto_undesirable_weight=3)
RIGHT = torch.tensor([True, False, True])


class Says(torch.nn.Module):
    """A model that says the same whatever it is asked: of two tokens, the first with probability .8."""

    def forward(self, input_ids: torch.Tensor, **_inputs: object) -> SimpleNamespace:
        logits = torch.tensor([math.log(0.8), math.log(0.2)])
        return SimpleNamespace(logits=logits.expand(*input_ids.shape, 2))


def batch_of(gone: float) -> dict[str, Any]:
    """Answers (0, 0), (1) and (0) behind one token of a prompt; the reference says .5 of each token."""
    ids = torch.tensor([[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    labels = torch.tensor([[-100, 0, 0], [-100, 1, -100], [-100, 0, -100]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 0]])
    reference_b = math.log(0.5) * torch.tensor([2.0, 1.0, 1.0])
    own = {"input_ids": ids, "labels": labels, "attention_mask": mask, "reference_b": reference_b}
    others = {f"kl_{name}": value.flip(0) for name, value in own.items()}
    return {**own, **others, "is_desirable": RIGHT, "gone": torch.tensor(gone)}


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_the_loss_of_three_answers_by_hand() -> None:
    # Log ratios: 2 log 1.6, log .4 and log 1.6; the reference point is .3.
    r = [2 * math.log(1.6), math.log(0.4), math.log(1.6)]
    expected = (
        2 * (1 - sigmoid(0.5 * (r[0] - 0.3)))
        + 3 * (1 - sigmoid(0.5 * (0.3 - r[1])))
        + 2 * (1 - sigmoid(0.5 * (r[2] - 0.3)))
    )
    parts = loss_of(CONFIG, Says(), batch_of(0.3))
    assert float(parts.totals["rows"]) == pytest.approx(expected)
    counts = count_rated(batch_of(0.3))
    assert counts == {"rows": 3, "desirable": 2, "undesirable": 1}
    means = {name: float(total) / counts[counted] for name, (total, counted) in parts.metrics.items()}
    assert means == pytest.approx({
        "kl": 0.3,
        "rewards/chosen": 0.5 * (r[0] + r[2]) / 2, "rewards/rejected": 0.5 * r[1],
        "logps/chosen": 1.5 * math.log(0.8), "logps/rejected": math.log(0.2),
    })  # fmt: skip
    assert margins(means) == {
        "rewards/margins": pytest.approx(means["rewards/chosen"] - means["rewards/rejected"])
    }
    assert set(means) | set(margins(means)) == set(KtoConfig.own_figures)


def test_how_far_the_model_has_gone_is_that_of_the_other_answers() -> None:
    total, counted = gone_of(Says(), batch_of(0.0))["gone"]
    assert counted == "rows" and float(total) == pytest.approx(3 * math.log(1.6) + math.log(0.4))


def test_the_reference_point_is_not_below_zero() -> None:
    below, at = (loss_of(CONFIG, Says(), batch_of(gone)) for gone in (-0.7, 0.0))
    assert float(below.totals["rows"]) == float(at.totals["rows"]) and float(below.metrics["kl"][0]) == 0


def test_where_the_model_is_the_reference_each_row_has_half_its_weight() -> None:
    losses_b = kto_losses(torch.zeros(3), RIGHT, torch.tensor(0.0), 0.1, 2.0, 3.0)
    assert losses_b.tolist() == [1.0, 1.5, 1.0]


def test_a_batch_of_one_kind_has_no_figures_of_the_other() -> None:
    batch = {**batch_of(0.0), "is_desirable": torch.tensor([True, True, True])}
    parts = loss_of(CONFIG, Says(), batch)
    assert count_rated(batch)["undesirable"] == 0 and float(parts.metrics["rewards/rejected"][0]) == 0
    assert margins({"rewards/chosen": 1.0}) == {}


def test_the_gradient_is_that_of_the_formula() -> None:
    ratio_b = torch.tensor([0.4, -1.3, 2.0], dtype=torch.float64, requires_grad=True)
    kl = torch.tensor(0.2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda r: kto_losses(r, RIGHT, kl, 0.7, 2.0, 3.0), (ratio_b,))
    kto_losses(ratio_b, RIGHT, kl, 0.7, 2.0, 3.0).sum().backward()
    assert (ratio_b.grad.sign() == torch.tensor([-1, 1, -1])).all()


def test_far_out_ratios_have_finite_losses_and_gradients() -> None:
    ratio_b = torch.tensor([1e4, 1e4, -1e4], requires_grad=True)
    losses_b = kto_losses(ratio_b, RIGHT, torch.tensor(0.0), 1.0, 1.0, 1.0)
    losses_b.sum().backward()
    assert losses_b.tolist() == [0.0, 1.0, 1.0] and ratio_b.grad.isfinite().all()


@pytest.mark.parametrize(
    ("desirable", "undesirable", "found"),
    [(100, 100, None), (133, 100, None), (90, 100, None), (160, 100, None), (200, 100, 2.0), (50, 100, 0.5)],
)
def test_shares_that_are_far_from_what_is_recommended(
    desirable: float, undesirable: float, found: float | None
) -> None:
    assert share_of_kinds(desirable, undesirable) == found


@pytest.mark.parametrize("key", ["kto_desirable_weight", "kto_undesirable_weight", "rl_beta"])
@pytest.mark.parametrize("value", [0, -1, "much", float("nan"), float("inf")])
def test_weights_are_numbers_above_zero(key: str, value: object) -> None:
    with pytest.raises(ValidationError):
        KtoConfig(learning_rate=1, **{key: value})


def test_an_estimate_takes_each_row_for_one_sequence() -> None:
    shape, (note,) = batch_shape(KtoConfig(learning_rate=1, micro_batch_size=3), {})
    assert shape.rows == 3 and "each row is taken for a sequence" in note


def test_a_step_of_one_row_is_doubtful() -> None:
    (doubt,) = KtoConfig(learning_rate=1).doubts()
    assert "a step has one row" in doubt
    assert not list(KtoConfig(learning_rate=1, micro_batch_size=2).doubts())
