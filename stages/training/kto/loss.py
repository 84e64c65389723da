"""The loss of KTO: an answer gains or loses against a reference point, not against another answer.

With r the log of how much likelier an answer is than under the reference model (both summed over its tokens), z how far
the model has gone from the reference on the whole, and w the weight of its kind:

    desirable:   w (1 - sigmoid(beta (r - z)))
    undesirable: w (1 - sigmoid(beta (z - r)))

z is the mean of r over prompts with answers that belong to other prompts, and not below 0. It has no gradient.

Shapes: B rows.

Source: Ethayarajh et al. 2024, "KTO: Model Alignment as Prospect Theoretic Optimization" (arXiv 2402.01306), equations
7 and 8; the estimate of z from shifted answers is theirs too (section 4.1).
"""

import torch
from torch import Tensor

# Equation 8 for shares of both kinds: the weights that are summed over desirable rows, over those of undesirable ones.
LEAST_SHARE, MOST_SHARE = 1.0, 4 / 3
# So much beyond that range is worth a word.
TOLERANCE = 1.25


def kto_losses(
    ratio_b: Tensor, is_desirable_b: Tensor, kl: Tensor, beta: float, desirable: float, undesirable: float
) -> Tensor:
    """[B] the loss of each row. `ratio_b`: r; `kl`: z; then beta and the weights of both kinds."""
    sign_b = torch.where(is_desirable_b, 1.0, -1.0).to(ratio_b)
    weight_b = torch.where(is_desirable_b, desirable, undesirable).to(ratio_b)
    # 1 - sigmoid(x) is sigmoid(-x), without the rounding of a difference.
    return weight_b * torch.sigmoid(-beta * sign_b * (ratio_b - kl))


def share_of_kinds(desirable: float, undesirable: float) -> float | None:
    """How far the sums of weights are from what the authors recommend: their quotient where it is far, else None.

    Both must be above 0.
    """
    share = desirable / undesirable
    return None if LEAST_SHARE / TOLERANCE <= share <= MOST_SHARE * TOLERANCE else share
