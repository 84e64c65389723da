"""DPO: pairs of answers, against the model that training starts from."""

from typing import Any

from torch import Tensor

from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.models.answers_body import (
    WeightedLogP,
    answer_log_p_alone,
    is_flat,
    weighted_answer_log_p,
)
from tunemill.stages.training.dpo.config import SFT, DpoConfig
from tunemill.stages.training.dpo.loss import LOSSES, Gains
from tunemill.stages.training.method import Batch, Counts, LossParts
from tunemill.stages.training.pairs_body import compared, count_pairs, on_pairs


def counts_of(batch: Batch) -> Counts:
    """Pairs, and tokens of the chosen answers."""
    pairs = count_pairs(batch)["pairs"]
    trained = batch["labels"] != IGNORED
    if is_flat(batch):
        chosen = (batch["position_ids"] == 0).cumsum(-1) <= pairs
        return {"pairs": pairs, "chosen_tokens": int((trained & chosen).sum())}
    return {"pairs": pairs, "chosen_tokens": int(trained[:pairs].sum())}


def loss_of(config: DpoConfig, model: Any, batch: Batch) -> LossParts:
    """The comparisons over pairs, and of `sft` the likelihood over the tokens of chosen answers."""
    found = (weighted_answer_log_p if config.dpo_use_weighting else answer_log_p_alone)(model, batch)
    gains = gains_of(found.sum_2b, batch["reference_2b"], found.tokens_2b)
    weights_b: Tensor | float = 1.0
    if isinstance(found, WeightedLogP):
        chosen_b, rejected_b = found.weights_2b.chunk(2)
        weights_b = chosen_b * rejected_b
    compare = [
        weight * LOSSES[name](gains, config.rl_beta, config.dpo_label_smoothing)
        for name, weight in config.losses
        if name != SFT
    ]
    nll_b = -found.sum_2b.chunk(2)[0]
    totals = {"pairs": (weights_b * sum(compare)).sum()} if compare else {}
    weight_of_sft = dict(config.losses).get(SFT)
    if weight_of_sft is not None:
        totals["chosen_tokens"] = weight_of_sft * (weights_b * nll_b).sum()
    return LossParts(
        totals,
        {
            **compared(found.sum_2b.chunk(2), (gains.chosen_b, gains.rejected_b), config.rl_beta),
            "nll_loss": (nll_b.detach().sum(), "chosen_tokens"),
        },
    )


def gains_of(log_p_2b: Tensor, reference_2b: Tensor, tokens_2b: Tensor) -> Gains:
    """What answers have gained, of log probabilities of the chosen ones and then of the rejected ones."""
    chosen_b, rejected_b = (log_p_2b - reference_2b).chunk(2)
    tokens_b, other_tokens_b = tokens_2b.chunk(2)
    (now_b, other_now_b), (before_b, other_before_b) = log_p_2b.chunk(2), reference_2b.chunk(2)
    return Gains(
        chosen_b, rejected_b, tokens_b, other_tokens_b, now_b - other_now_b, before_b - other_before_b
    )


dpo = on_pairs(loss_of, counts_of)
