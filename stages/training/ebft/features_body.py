"""Rewards and loss terms of energy-based fine-tuning (EBFT): what a frozen model makes of completions, compared.

A frozen copy of the model reads the prompt with a completion, and with the reference answer. Hidden states of some
layers, pooled over tokens and put side by side, are the features. With g_j those of n completions of a prompt and y
those of the answer, all of length 1, a completion's reward is

    2 a cos(g_j, y) - 2 d / (n - 1) sum over the others of g_j . g_k

so it is rewarded for being like the answer and not for being like the others. What it comes to is the squared distance
of the completions' mean from the answer, ||mean(g) - y||^2, which is shown. `whitened` weighs all directions of the
completions alike before: with their singular vectors U and values S, W = U diag(1 / S) U^T. Whitened features keep
their lengths in the products of completions and in the distance; the cosine has none in any case.

Shapes: B sequences, L tokens, D features, G prompts, N completions of each. Source: Jelassi et al. 2026, arXiv
2603.12248, equations 2, 7 and 49, as Axolotl's documents have it.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

EmbedMethod = Literal["last_token", "mean_pooling", "completion_mean", "concat"]
Estimator = Literal["rloo", "group_norm", "reinforce"]
# Where `concat` looks, as shares of a sequence.
PLACES = (0.25, 0.5, 0.75)
# Of singular values, below which a direction is none.
LEAST = 1e-6


def layers_of(shares: Sequence[float], layers: int) -> list[int]:
    """Which of the hidden states of a model with so many layers, whose embeddings are number 0: those of share 0."""
    return [min(layers, max(1, int(share * layers))) if share else 0 for share in shares]


def features_of(states_kbld: Sequence[Tensor]) -> Tensor:
    """[B, L, K D] of the hidden states of K layers, each of length 1, so that none outweighs the others."""
    return torch.cat([normalize(states_bld.float(), dim=-1) for states_bld in states_kbld], dim=-1)


def pooled(
    states_bld: Tensor, mask_bl: Tensor, method: EmbedMethod, prompt_tokens_b: Tensor | None = None
) -> Tensor:
    """[B, D], of `concat` [B, 3 D], of hidden states; `mask_bl` is 1 at tokens, which stand before all padding."""
    lengths_b = mask_bl.sum(-1).clamp(min=1)
    if method == "last_token":
        return _at(states_bld, lengths_b - 1)
    if method == "concat":
        return torch.cat([_at(states_bld, (share * (lengths_b - 1)).long()) for share in PLACES], dim=-1)
    if method == "completion_mean":
        assert prompt_tokens_b is not None, "where the prompt ends"
        mask_bl = mask_bl * (
            torch.arange(mask_bl.shape[1], device=mask_bl.device) >= prompt_tokens_b[:, None]
        )
    weights_bl = mask_bl.to(states_bld.dtype)
    return (states_bld * weights_bl[..., None]).sum(1) / weights_bl.sum(-1, keepdim=True).clamp(min=1)


def _at(states_bld: Tensor, places_b: Tensor) -> Tensor:
    return states_bld[torch.arange(len(states_bld), device=states_bld.device), places_b]


def whitened(made_nd: Tensor, answer_d: Tensor) -> tuple[Tensor, Tensor]:
    """The features of a prompt's completions and of its answer, all directions of the former weighed alike."""
    values_r, directions_rd = torch.linalg.svd(made_nd, full_matrices=False)[1:]
    inverse_r = torch.where(values_r > LEAST * values_r.max(), 1 / values_r, torch.zeros_like(values_r))
    weights_dd = directions_rd.T @ (inverse_r[:, None] * directions_rd)
    return made_nd @ weights_dd, answer_d @ weights_dd


def feature_rewards(
    made_gnd: Tensor, answers_gd: Tensor, alignment: float, diversity: float, *, unit: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """[G, N] rewards, how alike each completion is to the answer, and how alike it is to the others in the mean.

    `unit`: whether features are given length 1 first; those that are whitened keep theirs.
    """
    alike_gn = (normalize(made_gnd, dim=-1) * normalize(answers_gd, dim=-1)[:, None]).sum(-1)
    if unit:
        made_gnd = normalize(made_gnd, dim=-1)
    between_gnn = made_gnd @ made_gnd.transpose(-1, -2)
    others = made_gnd.shape[1] - 1
    among_gn = (between_gnn.sum(-1) - between_gnn.diagonal(dim1=-2, dim2=-1)) / max(others, 1)
    return 2 * alignment * alike_gn - 2 * diversity * among_gn, alike_gn, among_gn


def distance_to_answer(made_gnd: Tensor, answers_gd: Tensor, *, unit: bool = True) -> Tensor:
    """[G]: ||mean(g) - y||^2, what the rewards make small."""
    if unit:
        made_gnd, answers_gd = normalize(made_gnd, dim=-1), normalize(answers_gd, dim=-1)
    return (made_gnd.mean(1) - answers_gd).square().sum(-1)


def feature_advantages(rewards_gn: Tensor, estimator: Estimator) -> Tensor:
    """[G, N]: rewards less the mean of the others, or less their mean over their spread, or as they are."""
    count = rewards_gn.shape[1]
    if estimator == "reinforce" or count == 1:
        return rewards_gn
    if estimator == "rloo":
        return (rewards_gn - rewards_gn.mean(-1, keepdim=True)) * count / (count - 1)
    return (rewards_gn - rewards_gn.mean(-1, keepdim=True)) / (rewards_gn.std(-1, keepdim=True) + 1e-4)


def anchors(length: int, first: int, stride: int, generated: int) -> list[int]:
    """Where a document of `length` tokens is left for completions of so many: every `stride` tokens from `first` on."""
    return list(range(first, length - generated + 1, stride))


def block_mask(length: int, starts: Sequence[int], context: int, generated: int) -> Tensor:
    """[Q, Q] bool, whether a token sees another: the document, then a block of generated tokens for each anchor.

    Tokens of the document see what is before them. Those of a block see the `context` tokens before its anchor and
    what the block has before them, and nothing of other blocks.
    """
    total = length + len(starts) * generated
    sees_qq = torch.zeros(total, total, dtype=torch.bool)
    sees_qq[:length, :length] = torch.ones(length, length, dtype=torch.bool).tril()
    for number, start in enumerate(starts):
        first = length + number * generated
        sees_qq[first : first + generated, max(0, start - context) : start] = True
        sees_qq[first : first + generated, first : first + generated] = torch.ones(
            generated, generated, dtype=torch.bool
        ).tril()
    return sees_qq
