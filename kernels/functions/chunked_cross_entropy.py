"""Final projection and cross-entropy over the tokens in pieces, in plain PyTorch, for any device.

With h_n one hidden row, W the projection, y_n the label, c the soft cap, e the label smoothing, a the z-loss
factor and N the number of labels that are not `ignore_index`:

    z_n  = W h_n,  then  c tanh(z_n / c)  if capped
    loss = 1/N sum_n [ lse(z_n) - (1 - e) z_n[y_n] - e mean_v z_nv + a lse(z_n)^2 ]

Shapes: hidden (..., H), weight (V, H), labels (...) already shifted; the loss is a float32 scalar (float64 for
float64). hidden and weight share a floating dtype, or are cast to autocast's; logits are rounded to it, and all
behind them is float32. With every label ignored, the loss and its gradients are 0.

The tokens go in `num_chunks` pieces of one size (the last may be smaller). A piece's logits are dropped after its
loss and computed again in the backward pass, so that one piece's are alive at a time, at the price of a fourth
matrix product. `linear_cross_entropy` is faster where Triton runs; this one needs nothing but PyTorch.

Sources: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost" (arXiv 1604.06174) for recomputing;
Szegedy et al. 2015 (arXiv 1512.00567) for label smoothing; Chowdhery et al. 2022, "PaLM" (arXiv 2204.02311) for
the z-loss; Gemma Team 2024 (arXiv 2408.00118) for the cap.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tunemill.kernels.functions import linear_cross_entropy
from tunemill.kernels.functions.triton_runtime import cdiv


def reference(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    num_chunks: int = 8,
    ignore_index: int = -100,
    softcap: float | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Tensor:
    """Mean loss through the whole logits matrix; `num_chunks` is checked and makes no difference."""
    check_chunks(num_chunks)
    return linear_cross_entropy.reference(
        hidden,
        weight,
        labels,
        ignore_index=ignore_index,
        softcap=softcap,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
    )


def chunked_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    num_chunks: int = 8,
    ignore_index: int = -100,
    softcap: float | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Tensor:
    """Mean loss of ``hidden @ weight.T`` against `labels`, one piece of the tokens at a time.

    Raises ValueError for shapes, dtypes or settings that do not fit.
    """
    check_chunks(num_chunks)
    if torch.is_autocast_enabled(hidden.device.type) and hidden.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    linear_cross_entropy.check_inputs(hidden, weight, labels, softcap, label_smoothing)
    hidden_nh, labels_n = hidden.reshape(-1, hidden.shape[-1]), labels.reshape(-1)
    size = cdiv(labels_n.numel(), num_chunks)
    settings = (ignore_index, softcap, label_smoothing, z_loss)
    sums = [
        # Nothing here is random, and reading the state of the generator would wait for the device.
        checkpoint(
            _loss_sum, hidden_ch, weight, labels_c, *settings, use_reentrant=False, preserve_rng_state=False
        )
        for hidden_ch, labels_c in zip(hidden_nh.split(size), labels_n.split(size), strict=True)
    ]
    counted = (labels_n != ignore_index).sum()
    return torch.stack(sums).sum() / counted.clamp(min=1)


def _loss_sum(
    hidden_ch: Tensor,
    weight_vh: Tensor,
    labels_c: Tensor,
    ignore_index: int,
    softcap: float | None,
    label_smoothing: float,
    z_loss: float,
) -> Tensor:
    """The losses of one piece, summed."""
    logits_cv = hidden_ch @ weight_vh.T
    logits_cv = logits_cv.to(torch.promote_types(logits_cv.dtype, torch.float32))
    if softcap is not None:
        logits_cv = softcap * torch.tanh(logits_cv / softcap)
    loss = functional.cross_entropy(
        logits_cv, labels_c, ignore_index=ignore_index, reduction="sum", label_smoothing=label_smoothing
    )
    if z_loss:
        lse_c = logits_cv.logsumexp(dim=-1).masked_fill(labels_c == ignore_index, 0.0)
        loss = loss + z_loss * lse_c.square().sum()
    return loss


def check_chunks(num_chunks: int) -> None:
    """Raise ValueError unless it is a number of pieces."""
    if num_chunks < 1:
        raise ValueError(f"num_chunks: {num_chunks}; a whole number of at least 1")
