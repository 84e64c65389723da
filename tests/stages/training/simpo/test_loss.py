"""The loss of SimPO against values derived by hand, against TRL's function, and against its own derivative."""

import math
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError
from support.pairs import Says, batch_of
from trl.experimental.cpo import CPOTrainer

from tunemill.stages.training.simpo.body import counts_of, loss_of
from tunemill.stages.training.simpo.config import SimpoConfig
from tunemill.stages.training.simpo.loss import margin_loss


def test_the_loss_of_two_pairs_by_hand() -> None:
    # A vocabulary of two tokens, of which the first has the probability .8 anywhere.
    logits = torch.tensor([math.log(0.8), math.log(0.2)]).expand(4, 3, 2)
    batch = batch_of(
        [[0, 0, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1]],
        [[-100, 0, 0], [-100, -100, 0], [-100, 1, 1], [-100, 0, 1]],
    )
    # Chosen answers are (0, 0) and (0): mean log probability log .8. Rejected are (1, 1): log .2, and (0, 1): the mean
    # of log .8 and log .2, which is log .4. So the differences are log 4 and log 2.
    config = SimpoConfig(learning_rate=1, rl_beta=2, simpo_gamma=math.log(3), cpo_alpha=0.25)
    parts = loss_of(config, Says(logits), batch)
    # -log sigmoid(x) = log(1 + e^-x), and e^-x is e^gamma / 4^2 and e^gamma / 2^2.
    assert float(parts.totals["pairs"]) == pytest.approx(math.log(1 + 3 / 16) + math.log(1 + 3 / 4))
    # Likelihood of the chosen answers, without their prompts: three tokens.
    assert float(parts.totals["tokens"]) == pytest.approx(-0.25 * 3 * math.log(0.8))
    assert counts_of(batch) == {"pairs": 2, "tokens": 3}
    assert tuple(parts.metrics) == SimpoConfig.own_figures
    shown = {name: (float(total), counted) for name, (total, counted) in parts.metrics.items()}
    assert shown == {
        "nll_loss": (pytest.approx(-3 * math.log(0.8)), "tokens"),
        "rewards/chosen": (pytest.approx(2 * math.log(0.64)), "pairs"),
        "rewards/rejected": (pytest.approx(2 * math.log(0.08)), "pairs"),
        "rewards/margins": (pytest.approx(2 * math.log(8)), "pairs"),
        "rewards/accuracies": (2, "pairs"),
        "logps/chosen": (pytest.approx(math.log(0.64)), "pairs"),
        "logps/rejected": (pytest.approx(math.log(0.08)), "pairs"),
    }


@pytest.mark.parametrize(("beta", "gamma"), [(0.1, 0.5), (2.0, 0.0), (2.5, 1.4)])
def test_it_is_trls_function(beta: float, gamma: float) -> None:
    torch.manual_seed(0)
    chosen_b, rejected_b = -5 * torch.rand(2, 64, dtype=torch.float64)
    settings = SimpleNamespace(
        loss_type="simpo", beta=beta, simpo_gamma=gamma, label_smoothing=0.0, alpha=0.0,
        accelerator=SimpleNamespace(device="cpu"),
    )  # fmt: skip
    expected_b, _, _ = CPOTrainer.cpo_loss(settings, chosen_b, rejected_b)
    torch.testing.assert_close(margin_loss(chosen_b, rejected_b, beta, gamma), expected_b)


def test_its_gradient_is_its_derivative() -> None:
    torch.manual_seed(0)
    answers = [(-5 * torch.rand(6, dtype=torch.float64)).requires_grad_() for _ in range(2)]
    assert torch.autograd.gradcheck(lambda *pair: margin_loss(*pair, beta=2.0, gamma=0.7), answers)


def test_a_hopeless_pair_has_a_finite_loss_and_gradient() -> None:
    rejected_b = torch.tensor([-1e-4, -500.0], requires_grad=True)
    losses_b = margin_loss(torch.tensor([-500.0, -1e-4]), rejected_b, beta=10.0, gamma=1.0)
    losses_b.sum().backward()
    assert losses_b.tolist() == pytest.approx([5001.0, 0.0], rel=1e-5)
    assert rejected_b.grad is not None and rejected_b.grad.tolist() == pytest.approx([10.0, 0.0])


def test_without_likelihood_only_the_difference_counts() -> None:
    torch.manual_seed(1)
    ids = torch.randint(0, 9, (2, 5)).tolist()
    batch = batch_of(ids, [[-100, -100, *row[2:]] for row in ids])
    model = Says(torch.randn(2, 5, 9))
    parts = loss_of(SimpoConfig(learning_rate=1, cpo_alpha=0), model, batch)
    assert parts.totals["tokens"] == 0 and parts.metrics["nll_loss"][0] > 0
    parts = loss_of(SimpoConfig(learning_rate=1), model, batch)
    assert parts.totals["tokens"] == parts.metrics["nll_loss"][0]


@pytest.mark.parametrize("wrong", [{"rl_beta": 0}, {"simpo_gamma": -0.1}, {"cpo_alpha": -1}])
def test_what_no_loss_can_be_made_of_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="greater than"):
        SimpoConfig(learning_rate=1, **wrong)
