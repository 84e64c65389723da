"""Liger Kernel's functions under the signatures of ours in `tunemill.kernels`, for models built from functions.

Liger saves memory by writing over what it is given, and says nothing to autograd. Here `rope` and `cross_entropy`
mark what they wrote, so that a later use of it in a graph raises; what the backward passes write over (gate and up,
the gradients of q and k, those of the loss) allows no second backward pass through a kept graph.

Importing this imports liger_kernel, which picks its kernels once for the process: by the device and by the
environment variable LIGER_KERNEL_IMPL. They run on a GPU, in float32, bfloat16 and float16.
"""

import torch
from liger_kernel.ops import (
    LigerCrossEntropyFunction,
    LigerFusedLinearCrossEntropyFunction,
    LigerGELUMulFunction,
    LigerLayerNormFunction,
    LigerRMSNormFunction,
    LigerRopeFunction,
    LigerSiLUMulFunction,
)
from torch import Tensor
from torch.autograd.graph import increment_version


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, offset: float = 0.0) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * (offset + weight); x (..., n), weight (n,).

    Without an offset the normalised x is rounded before it meets the weight, as in Llama; with one it is rounded
    once, as in Gemma. The gradient gets memory of its own: where a residual runs beside the norm (Gemma 2, OLMo 2),
    both share the one that comes in.
    """
    casting_mode, in_place = ("gemma" if offset else "llama"), False
    y: Tensor = LigerRMSNormFunction.apply(x, weight, eps, offset, casting_mode, in_place)
    return y


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """(x - mean(x)) / sqrt(var(x) + eps) * weight + bias; x (..., n), weight and bias (n,)."""
    y: Tensor = LigerLayerNormFunction.apply(x, weight, bias, eps)
    return y


def rope(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """q (b, h, s, d) and k (b, g, s, d) rotated by cos and sin, (b or 1, s, r) or (s, r) with r <= d.

    Written over q and k where they are transposed from a contiguous (b, s, heads, d), as in a model. Only the
    first half of cos and sin is read; the second repeats it.
    """
    for x in (q, k):
        if x.transpose(1, 2).is_contiguous():
            _mark_written(x)
    rotated: tuple[Tensor, Tensor] = LigerRopeFunction.apply(q, k, cos, sin)
    return rotated


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up; gate and up (..., n) of one dtype."""
    y: Tensor = LigerSiLUMulFunction.apply(gate, up)
    return y


def geglu(gate: Tensor, up: Tensor, approximate: str = "tanh") -> Tensor:
    """gelu(gate) * up; gate and up (..., n) of one dtype.

    Raises ValueError for another form of gelu than the tanh one, the only one that Liger has.
    """
    if approximate != "tanh":
        raise ValueError(
            f"approximate: {approximate}; Liger has gelu in its tanh form only. Set liger_glu_activation: false."
        )
    y: Tensor = LigerGELUMulFunction.apply(gate, up)
    return y


def cross_entropy(logits: Tensor, labels: Tensor, *, ignore_index: int = -100) -> Tensor:
    """Mean loss of logits (..., V) against labels (...) already shifted, in float32; 0 if all are ignored.

    Logits of another dtype are copied to float32: Liger sums the losses in the dtype of the logits. The gradient of
    float32 logits is written over them at once: keep a copy of what is still wanted of them.
    """
    logits_nv = logits.reshape(-1, logits.shape[-1]).float()
    if logits_nv.requires_grad:
        _mark_written(logits_nv)
    class_weights, z_loss, label_smoothing = None, 0.0, 0.0
    loss: Tensor = LigerCrossEntropyFunction.apply(
        logits_nv, labels.reshape(-1), class_weights, ignore_index, z_loss, label_smoothing
    )[0]
    return loss


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    ignore_index: int = -100,
    softcap: float | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Tensor:
    """Mean loss of hidden (..., H) @ weight.T (V, H) against labels (...) already shifted; 0 if all are ignored.

    A label outside the vocabulary other than `ignore_index` reads memory that is not its own.
    """
    if torch.is_grad_enabled() and weight.requires_grad and not hidden.requires_grad:
        # Liger computes the gradient of weight only beside that of hidden.
        hidden = hidden.detach().requires_grad_()
    class_weights, bias = None, None
    loss: Tensor = LigerFusedLinearCrossEntropyFunction.apply(
        hidden.reshape(-1, hidden.shape[-1]),
        weight,
        labels.reshape(-1),
        bias,
        class_weights,
        ignore_index,
        z_loss,
        label_smoothing,
        "mean",
        softcap,
    )[0]
    return loss


def _mark_written(x: Tensor) -> None:
    """Let autograd refuse what it saved of `x`, which is about to be written over; a compiler sees the writing."""
    if not torch.compiler.is_compiling():
        increment_version(x)
