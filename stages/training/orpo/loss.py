"""The loss of ORPO: likelihood of the chosen answer, and the odds of chosen against rejected.

With p a mean probability of an answer's tokens (log p: the mean of their log probabilities) and a the weight:

    odds(p) = p / (1 - p)
    loss    = nll(prompt and chosen answer) - a log sigmoid(log odds(p_chosen) - log odds(p_rejected))

Shapes: B pairs.

Source: Hong, Lee and Thorne 2024, "ORPO: Monolithic Preference Optimization without Reference Model" (arXiv
2403.07691), equations 4 to 7; as in TRL, the likelihood is that of the prompt and the answer.
"""

import torch
from torch import Tensor
from torch.nn import functional

# A mean log probability of exactly 0 has no finite odds.
LARGEST_LOG_P = -1e-6


def log_odds(log_p: Tensor) -> Tensor:
    """log(p / (1 - p)) of log p < 0, without cancellation at either end."""
    log_p = log_p.clamp(max=LARGEST_LOG_P)
    small = log_p < -0.6931471805599453  # p < 1/2
    # Each branch is kept finite where the other is taken: its gradient, times 0, must not be NaN.
    of_small = torch.log1p(-torch.where(small, log_p, -1.0).exp())
    of_large = torch.log(-torch.expm1(torch.where(small, -0.1, log_p)))
    return log_p - torch.where(small, of_small, of_large)


def odds_ratio_loss(log_odds_b: Tensor, alpha: float) -> Tensor:
    """-alpha log sigmoid of each pair's log odds ratio."""
    return -alpha * functional.logsigmoid(log_odds_b)
