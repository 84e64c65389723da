"""The divergence of a student from what a teacher says of the likeliest tokens.

With T the temperature, p the teacher's and q the student's probabilities of the K tokens that are stored:

    p = softmax over the K of log p_stored / T
    q = softmax over the K of the student's logits / T;  not normalized: over the whole vocabulary

    beta = 0        sum p (log p - log q)                                 forward KL divergence
    beta = 1        sum q (log q - log p)                                 reverse
    0 < beta < 1    beta sum p (log p - log m) + (1 - beta) sum q (log q - log m),  m = beta p + (1 - beta) q

A token of which the teacher says nothing has a divergence of 0.

Shapes: N trained tokens, V the vocabulary, K the likeliest tokens.

Source: Axolotl's `axolotl.integrations.kd`, and the generalized Jensen-Shannon divergence of Agarwal et al. 2023
(arXiv 2306.13649).
"""

import math

import torch
from torch import Tensor


def top_k_divergence(
    logits_nv: Tensor,
    token_ids_nk: Tensor,
    log_p_nk: Tensor,
    *,
    temperature: float,
    beta: float,
    normalizes: bool,
) -> Tensor:
    """[N] divergence (nats). `log_p_nk`: the teacher's, up to what is the same for all K; -inf where there is none.

    `normalizes`: whether q is of the K alone.
    """
    there_nk = log_p_nk > -math.inf
    scaled_nv = logits_nv / temperature
    student_nk = scaled_nv.gather(-1, token_ids_nk)
    if normalizes:
        log_z_n1 = student_nk.masked_fill(~there_nk, -math.inf).logsumexp(-1, keepdim=True)
        # Nothing is there: any number will do.
        log_z_n1 = torch.where(there_nk.any(-1, keepdim=True), log_z_n1, 0.0)
    else:
        log_z_n1 = scaled_nv.logsumexp(-1, keepdim=True)
    log_q_nk = student_nk - log_z_n1
    teacher_nk = (log_p_nk.to(logits_nv.dtype) / temperature).masked_fill(~there_nk, -math.inf)
    log_p_nk = torch.where(there_nk, teacher_nk - teacher_nk.logsumexp(-1, keepdim=True), 0.0)
    terms_nk = _terms(log_p_nk, log_q_nk, beta)
    return torch.where(there_nk, terms_nk, 0.0).sum(-1)


def _terms(log_p: Tensor, log_q: Tensor, beta: float) -> Tensor:
    """Each token's part of the sums."""
    if beta == 0:
        return log_p.exp() * (log_p - log_q)
    if beta == 1:
        return log_q.exp() * (log_q - log_p)
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
    return beta * log_p.exp() * (log_p - log_m) + (1 - beta) * log_q.exp() * (log_q - log_m)
