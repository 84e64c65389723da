"""IPO: pairs of answers, against the model that training starts from."""

from typing import Any

from tunemill.stages.models.answers_body import answer_log_p_alone
from tunemill.stages.training.ipo.config import IpoConfig
from tunemill.stages.training.ipo.loss import squared_distance
from tunemill.stages.training.method import Batch, LossParts
from tunemill.stages.training.pairs_body import compared, on_pairs


def loss_of(config: IpoConfig, model: Any, batch: Batch) -> LossParts:
    """The loss over pairs; rewards are, as of DPO, of sums over the tokens of an answer."""
    found = answer_log_p_alone(model, batch)
    gains_2b = found.sum_2b - batch["reference_2b"]
    chosen_b, rejected_b = (gains_2b / found.tokens_2b).chunk(2)
    losses_b = squared_distance(chosen_b - rejected_b, config.rl_beta)
    return LossParts(
        {"pairs": losses_b.sum()}, compared(found.sum_2b.chunk(2), gains_2b.chunk(2), config.rl_beta)
    )


ipo = on_pairs(loss_of)
