"""The loss of ORPO against values derived by hand, against float64, and at the ends of what a probability may be."""

import math
from typing import Any

import pytest
import torch
from support.pairs import Says, batch_of

from tunemill.stages.models.answers_body import answer_log_p
from tunemill.stages.training.orpo.body import counts_of, loss_of
from tunemill.stages.training.orpo.config import OrpoConfig
from tunemill.stages.training.orpo.loss import log_odds


def test_the_loss_of_two_pairs_by_hand() -> None:
    # A vocabulary of two tokens, of which the first has the probability .8 anywhere.
    logits = torch.tensor([math.log(0.8), math.log(0.2)]).expand(4, 3, 2)
    batch = batch_of(
        [[0, 0, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1]],
        [[-100, 0, 0], [-100, -100, 0], [-100, 1, 1], [-100, 0, 1]],
    )
    # Chosen answers are (0, 0) and (0): mean log probability log .8. Rejected are (1, 1): log .2, and (0, 1): the mean
    # of log .8 and log .2, which is log .4.
    chosen_b, rejected_b = answer_log_p(Says(logits), batch).mean_b
    assert chosen_b.tolist() == pytest.approx([math.log(0.8), math.log(0.8)])
    assert rejected_b.tolist() == pytest.approx([math.log(0.2), math.log(0.4)])
    parts = loss_of(OrpoConfig(learning_rate=1, orpo_alpha=0.5), Says(logits), batch)
    # Likelihood of prompt and answer behind the first token: (0, 0), and (1, 0).
    assert float(parts.totals["tokens"]) == pytest.approx(-3 * math.log(0.8) - math.log(0.2))
    # Odds: 4 against 1/4, and 4 against 2/3; sigmoid(log 16) = 16/17, sigmoid(log 6) = 6/7.
    assert float(parts.totals["pairs"]) == pytest.approx(-0.5 * (math.log(16 / 17) + math.log(6 / 7)))
    assert counts_of(batch) == {"pairs": 2, "tokens": 4}
    assert tuple(parts.metrics) == OrpoConfig.own_figures
    assert parts.metrics["rewards/accuracies"] == (2, "pairs")
    assert float(parts.metrics["rewards/margins"][0]) == pytest.approx(0.5 * (math.log(4) + math.log(2)))
    for side, sum_of_logs in (("chosen", math.log(0.64)), ("rejected", math.log(0.08))):
        assert float(parts.metrics[f"logps/{side}"][0]) == pytest.approx(sum_of_logs)
        assert float(parts.metrics[f"rewards/{side}"][0]) == pytest.approx(0.5 * sum_of_logs)


def test_padding_counts_nowhere() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 6, 11)
    ids = torch.randint(0, 11, (2, 6)).tolist()
    labels = [[-100, -100, *row[2:]] for row in ids]
    config = OrpoConfig(learning_rate=1)
    short_batch = batch_of([row[:4] for row in ids], [row[:4] for row in labels])
    padded_batch = batch_of(ids, [[*row[:4], -100, -100] for row in labels], [[1, 1, 1, 1, 0, 0]] * 2)
    short, padded = (
        loss_of(config, Says(logits[:, :4]), short_batch),
        loss_of(config, Says(logits), padded_batch),
    )
    assert counts_of(short_batch) == counts_of(padded_batch)
    for name, total in short.totals.items():
        torch.testing.assert_close(padded.totals[name], total)


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
    ids = torch.randint(0, 9, (2, 5)).tolist()
    batch = batch_of(ids, [[-100, -100, *row[2:]] for row in ids])
    model = Says(torch.randn(2, 5, 9))
    before = [float(one) for one in answer_log_p(model, batch).mean_b]
    loss_of(OrpoConfig(learning_rate=1), model, batch).totals["pairs"].backward()
    with torch.no_grad():
        model.logits -= model.logits.grad
    after = [float(one) for one in answer_log_p(model, batch).mean_b]
    assert after[0] > before[0] and after[1] < before[1]


@pytest.mark.parametrize(
    "decides", [{"load_best_model_at_end": True}, {"lr_scheduler": "reduce_lr_on_plateau"}]
)
def test_a_figure_that_pairs_are_not_scored_by_is_refused(decides: dict[str, Any]) -> None:
    given = {"learning_rate": 1, "has_held_out_rows": True, "eval_steps": 1, **decides}
    for known in ("rewards/margins", "eval_nll_loss", None):
        OrpoConfig(**given, metric_for_best_model=known)
    with pytest.raises(
        ValueError, match=r"rewards/margin is no figure of held-out rows here. There are: eval_loss"
    ):
        OrpoConfig(**given, metric_for_best_model="rewards/margin")
