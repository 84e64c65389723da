"""The loss of ORPO against values derived by hand, against float64, and at the ends of what a probability may be."""

import math

import pytest
import torch
from torch.nn import functional

from tunemill.stages.training.orpo.loss import log_odds, odds_ratio_loss, orpo_terms


def test_the_loss_of_two_pairs_by_hand() -> None:
    # A vocabulary of two tokens; the logits (log p, log (1-p)) give token 0 the probability p, anywhere.
    ids = torch.tensor([[0, 0, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1]])
    labels = torch.tensor([[-100, 0, 0], [-100, -100, 0], [-100, 1, 1], [-100, 0, 1]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1]])
    p = 0.8
    logits = torch.tensor([math.log(p), math.log(1 - p)]).expand(4, 3, 2)
    terms = orpo_terms(logits, ids, labels, mask)
    # Chosen answers are (0, 0) and (0): mean log probability log .8. Rejected are (1, 1): log .2, and (0, 1): the mean
    # of log .8 and log .2, which is log .4.
    assert terms.chosen_b.tolist() == pytest.approx([math.log(0.8), math.log(0.8)])
    assert terms.rejected_b.tolist() == pytest.approx([math.log(0.2), math.log(0.4)])
    # Odds: 4 against 1/4, and 4 against 2/3.
    assert terms.log_odds_b.tolist() == pytest.approx([math.log(16), math.log(6)])
    # Likelihood of prompt and answer behind the first token: (0, 0), and (1, 0).
    assert terms.nll_b.tolist() == pytest.approx([-2 * math.log(0.8), -math.log(0.2) - math.log(0.8)])
    # sigmoid(log 16) = 16/17.
    losses = odds_ratio_loss(terms.log_odds_b, 0.1).tolist()
    assert losses == pytest.approx([-0.1 * math.log(16 / 17), -0.1 * math.log(6 / 7)])


def test_padding_counts_nowhere() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 6, 11)
    ids = torch.randint(0, 11, (2, 6))
    labels, mask = ids.clone(), torch.ones_like(ids)
    labels[:, :2] = -100
    short = orpo_terms(logits[:, :4], ids[:, :4], labels[:, :4], mask[:, :4])
    labels[:, 4:], mask[:, 4:] = -100, 0
    padded = orpo_terms(logits, ids, labels, mask)
    for name in ("nll_b", "chosen_b", "rejected_b", "log_odds_b"):
        torch.testing.assert_close(getattr(padded, name), getattr(short, name))


@pytest.mark.parametrize("log_p", [-50.0, -5.0, -0.7, -0.693, -0.6, -1e-3, -1e-5])
def test_log_odds_are_right_at_both_ends(log_p: float) -> None:
    given = torch.tensor([log_p], requires_grad=True)
    odds = log_odds(given)
    exact = math.exp(log_p) / -math.expm1(log_p)
    assert odds.item() == pytest.approx(math.log(exact), rel=1e-5, abs=1e-6)
    odds.sum().backward()
    # d/dx (x - log(1 - e^x)) = 1 / (1 - e^x)
    assert given.grad.item() == pytest.approx(-1 / math.expm1(log_p), rel=1e-4)


def test_a_certain_answer_has_finite_odds_and_gradient() -> None:
    given = torch.tensor([0.0, -200.0], requires_grad=True)
    odds = log_odds(given)
    odds.sum().backward()
    assert odds.isfinite().all() and given.grad.isfinite().all()


def test_the_gradient_pulls_the_answers_apart() -> None:
    torch.manual_seed(1)
    logits = torch.randn(2, 5, 9, dtype=torch.float64, requires_grad=True)
    ids = torch.randint(0, 9, (2, 5))
    labels = ids.clone()
    labels[:, :2] = -100
    terms = orpo_terms(logits, ids, labels, torch.ones_like(ids))
    odds_ratio_loss(terms.log_odds_b, 1.0).sum().backward()
    moved = logits.detach() - 0.1 * logits.grad
    log_p = functional.log_softmax(moved[:, :-1], -1).gather(-1, ids[:, 1:, None])[..., 0][:, 1:].mean(-1)
    assert log_p[0] > terms.chosen_b[0] and log_p[1] < terms.rejected_b[0]
