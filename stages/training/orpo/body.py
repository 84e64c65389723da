"""ORPO: pairs of answers, no reference model."""

from typing import Any

from tunemill.stages.models.answers_body import answer_log_p
from tunemill.stages.training.method import Batch, Counts, LossParts
from tunemill.stages.training.orpo.config import OrpoConfig
from tunemill.stages.training.orpo.loss import log_odds, odds_ratio_loss
from tunemill.stages.training.pairs_body import compared, count_pairs, on_pairs


def counts_of(batch: Batch) -> Counts:
    """Pairs, and tokens of the chosen sequences that are predicted from those before them."""
    pairs = count_pairs(batch)["pairs"]
    return {"pairs": pairs, "tokens": int(batch["attention_mask"][:pairs, 1:].sum())}


def loss_of(config: OrpoConfig, model: Any, batch: Batch) -> LossParts:
    """Likelihood over the tokens of prompt and chosen answer, odds over pairs."""
    found = answer_log_p(model, batch)
    chosen_b, rejected_b = found.mean_b
    log_odds_b = log_odds(chosen_b) - log_odds(rejected_b)
    nll = -found.chosen_sequences
    return LossParts(
        totals={"tokens": nll, "pairs": odds_ratio_loss(log_odds_b, config.orpo_alpha).sum()},
        metrics={
            "nll_loss": (nll.detach(), "tokens"),
            "log_odds_chosen": (log_odds_b.detach().sum(), "pairs"),
            **compared(found.mean_b, found.mean_b, config.orpo_alpha),
        },
    )


orpo = on_pairs(loss_of, counts_of)
