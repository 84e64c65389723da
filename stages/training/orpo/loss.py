"""The loss of ORPO: likelihood of the chosen answer, and the odds of chosen against rejected.

With p a mean probability of an answer's tokens (log p: the mean of their log probabilities) and a the weight:

    odds(p) = p / (1 - p)
    loss    = nll(prompt and chosen answer) - a log sigmoid(log odds(p_chosen) - log odds(p_rejected))

Shapes: B pairs, 2B sequences (the chosen ones first) of L tokens, V the vocabulary.

Source: Hong, Lee and Thorne 2024, "ORPO: Monolithic Preference Optimization without Reference Model" (arXiv
2403.07691), equations 4 to 7; as in TRL, the likelihood is that of the prompt and the answer.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tunemill.kernels.functions.selective_log_softmax import selective_log_softmax
from tunemill.stages.data.rows.labels import IGNORED

# A mean log probability of exactly 0 has no finite odds.
LARGEST_LOG_P = -1e-6


@dataclass(frozen=True)
class OrpoTerms:
    """Of each pair: `nll_b`, summed over its tokens; the mean log probability of either answer; the log odds ratio."""

    nll_b: Tensor
    chosen_b: Tensor
    rejected_b: Tensor
    log_odds_b: Tensor


def orpo_terms(logits_2blv: Tensor, ids_2bl: Tensor, labels_2bl: Tensor, mask_2bl: Tensor) -> OrpoTerms:
    """The terms of B pairs. Labels are -100 outside the answers, the mask is 0 on padding."""
    pairs = len(ids_2bl) // 2
    log_p_2bl = selective_log_softmax(logits_2blv[:, :-1], ids_2bl[:, 1:])
    answer_2bl = labels_2bl[:, 1:] != IGNORED
    mean_2b = (log_p_2bl * answer_2bl).sum(-1) / answer_2bl.sum(-1)
    chosen_b, rejected_b = mean_2b[:pairs], mean_2b[pairs:]
    nll_b = -(log_p_2bl[:pairs] * mask_2bl[:pairs, 1:]).sum(-1)
    log_odds_b = log_odds(chosen_b) - log_odds(rejected_b)
    return OrpoTerms(nll_b, chosen_b, rejected_b, log_odds_b)


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
