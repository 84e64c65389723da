"""SimPO: pairs of answers, no reference model."""

from typing import Any

from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.models.answers_body import answer_log_p
from tunemill.stages.training.method import Batch, Counts, LossParts
from tunemill.stages.training.pairs_body import compared, count_pairs, on_pairs
from tunemill.stages.training.simpo.config import SimpoConfig
from tunemill.stages.training.simpo.loss import margin_loss


def counts_of(batch: Batch) -> Counts:
    """Pairs, and tokens of the chosen answers."""
    pairs = count_pairs(batch)["pairs"]
    return {"pairs": pairs, "tokens": int((batch["labels"][:pairs, 1:] != IGNORED).sum())}


def loss_of(config: SimpoConfig, model: Any, batch: Batch) -> LossParts:
    """The margin over pairs, and the likelihood over the tokens of the chosen answers."""
    found = answer_log_p(model, batch)
    chosen_b, rejected_b = found.mean_b
    losses_b = margin_loss(chosen_b, rejected_b, config.rl_beta, config.simpo_gamma)
    nll = -found.sum_2b.chunk(2)[0].sum()
    return LossParts(
        totals={"pairs": losses_b.sum(), "tokens": config.cpo_alpha * nll},
        metrics={
            "nll_loss": (nll.detach(), "tokens"),
            **compared(found.mean_b, found.mean_b, config.rl_beta),
        },
    )


simpo = on_pairs(loss_of, counts_of)
