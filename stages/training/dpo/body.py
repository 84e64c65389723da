"""DPO: pairs of answers, against the model that training starts from."""

from typing import Any

from tunemill.stages.models.answers_body import answer_log_p
from tunemill.stages.training.dpo.config import DpoConfig
from tunemill.stages.training.dpo.loss import sigmoid_loss
from tunemill.stages.training.method import Batch, LossParts
from tunemill.stages.training.pairs_body import compared, on_pairs


def loss_of(config: DpoConfig, model: Any, batch: Batch) -> LossParts:
    """The loss over pairs; rewards are beta times how much likelier an answer became."""
    log_p_2b = answer_log_p(model, batch).sum_2b
    chosen_b, rejected_b = (log_p_2b - batch["reference_2b"]).chunk(2)
    losses_b = sigmoid_loss(chosen_b - rejected_b, config.rl_beta)
    return LossParts(
        {"pairs": losses_b.sum()}, compared(log_p_2b.chunk(2), (chosen_b, rejected_b), config.rl_beta)
    )


dpo = on_pairs(loss_of)
