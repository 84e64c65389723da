"""The loss of a reward model: how likely the given preference is, if scores are log odds (Bradley and Terry).

    loss = -log sigmoid(r_chosen - r_rejected) + c (r_chosen + r_rejected)^2

Scores have no zero of their own, and the second term, where it is asked for, holds them around it. Shapes: B pairs.

Source: Ouyang et al. 2022, "Training language models to follow instructions with human feedback" (arXiv 2203.02155),
equation 1; Eisenstein et al. 2023 (arXiv 2312.09244), equation 2, for the second term.
"""

from torch import Tensor
from torch.nn import functional


def reward_loss(chosen_b: Tensor, rejected_b: Tensor, centering: float) -> Tensor:
    """The loss [B] of pairs with these scores [B]. `centering`: the weight c of the second term."""
    loss_b = -functional.logsigmoid(chosen_b - rejected_b)
    return loss_b + centering * (chosen_b + rejected_b).square() if centering else loss_b
