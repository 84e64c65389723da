"""The loss of EAFT: cross entropy in which a token counts as much as the model is undecided there.

With p the k largest logits of a place as probabilities, and a the exponent:

    H    = - sum over the k of p log p
    loss = mean over trained tokens of H^a * -log p(token)

No gradient passes through H. Where the model is sure of something else, H is small: such a token teaches little.

Shapes: B sequences, L tokens, V the vocabulary, N trained tokens.

Source: Entropy-Adaptive Fine-Tuning, github.com/ymxyll/LlamaFactory-EAFT, which Axolotl follows (`use_eaft`).
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.training.method import Batch, LossParts


def top_entropy(logits_nv: Tensor, k: int) -> Tensor:
    """[N] entropy (nats) of the k largest logits of each place, as if there were no others."""
    top_nk = logits_nv.topk(min(k, logits_nv.shape[-1]), dim=-1).values
    return torch.special.entr(top_nk.softmax(dim=-1)).sum(dim=-1)


def entropy_weighted(model: Any, batch: Batch, *, alpha: float, k: int) -> LossParts:
    """The loss of a micro batch, as sums over its trained tokens; the mean of H is shown beside it."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits_blv = model(**inputs, use_cache=False).logits
    targets_bl = batch["labels"][:, 1:]
    trained_bl = targets_bl != IGNORED
    logits_nv = logits_blv[:, :-1][trained_bl].float()
    losses_n = functional.cross_entropy(logits_nv, targets_bl[trained_bl], reduction="none")
    with torch.no_grad():
        entropies_n = top_entropy(logits_nv, k)
    return LossParts(
        {"tokens": (entropies_n.pow(alpha) * losses_n).sum()},
        {"token_entropy": (entropies_n.sum(), "tokens")},
    )
