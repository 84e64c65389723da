"""Final projection, softmax and cross-entropy in one function that never holds the logits matrix.

With h_n one hidden row, W the projection, y_n the label, w_n the token's weight, c the soft cap, e the label
smoothing and a the z-loss factor:

    z_n    = W h_n,  then  c tanh(z_n / c)  if capped
    lse_n  = log sum_v exp(z_nv)
    loss_n = lse_n - (1 - e) z_n[y_n] - e mean_v z_nv + a lse_n^2
    loss   = sum_n w_n loss_n / sum_n w_n

    dloss_n/dz_nv = p_nv (1 + 2 a lse_n) - e / V - (1 - e) [v = y_n],  p = softmax(z),
                    times 1 - tanh(z_nv / c)^2 (of the uncapped z) if capped

Shapes: hidden (..., H), weight (V, H), labels (...) already shifted, token_weights (...); the loss is a float32
scalar (float64 for float64). hidden and weight share one of float64, float32, bfloat16, float16; logits are rounded
to it as an eager projection rounds them, and everything from there to the gradient of the logits is float32.
w_n = 0 where the label is `ignore_index`; if every weight is 0, the loss and its gradients are 0.

Tokens are taken in chunks. For one chunk: logits = h W^T into a buffer that all chunks share; one kernel program per
row reads it twice, once for loss and lse, once to put dloss/dz in the logit's place; then dh = dz W and
dW += dz^T h. Forward and backward thus cost the three matrix products of the eager version and no fourth, and what
lives beside the gradients is one chunk of logits. A gradient that nobody asked for (frozen projection, evaluation)
is not computed. The backward pass only multiplies by grad_loss / sum_n w_n, in float32 and in place.

dW accumulates in weight's dtype over few chunks (8 up to 28k tokens at V = 151,936). Rounding k sums of growing
size instead of one costs sqrt((k + 1) / 2) times one rounding: 2.1 for k = 8. A float32 accumulator would take
more memory than the logits that were saved.

An ignored token costs its share of the matrix products only. The kernel cannot raise without waiting for the device:
a label outside [0, V) other than `ignore_index` makes loss and gradients NaN there, and is an error on a CPU.

Sources: Wijmans et al. 2024, "Cut Your Losses in Large-Vocabulary Language Models" (arXiv 2411.09009) and Hsu et al.
2024, "Liger Kernel" (arXiv 2410.10989) for the idea; Szegedy et al. 2015 (arXiv 1512.00567) for label smoothing;
Chowdhery et al. 2022, "PaLM" (arXiv 2204.02311) for the z-loss; Gemma Team 2024 (arXiv 2408.00118) for the cap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tunemill.kernels.functions.gating import graph_is_kept
from tunemill.kernels.functions.logit_rows import stages_of
from tunemill.kernels.functions.triton_runtime import (
    accumulation_type,
    cdiv,
    check_one_device,
    device_of,
    jit,
    next_power_of_2,
    runs_on,
    tl,
)

# Logits per step of a row, and per program when scaling a gradient.
BLOCK = 8192

# Logits between the beginnings of two rows are a multiple of this: 128 bytes of bfloat16. Rows of an odd
# vocabulary would be read two bytes at a time, by this kernel and by the matrix products.
ROW_MULTIPLE = 64

# A chunk is an eighth of the tokens within these bounds (in logits). The naive loss holds at least 14 bytes per
# logit (2 + 3 * 4 in bfloat16), so an eighth at 2 bytes is a 56th of it. Below the lower bound (441 tokens of
# V = 151,936) matrix products lose speed; above the upper one (3,533 tokens) they gain none.
CHUNKS = 8
FEWEST_LOGITS = 1 << 26
MOST_LOGITS = 1 << 29


def reference(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    ignore_index: int = -100,
    softcap: float | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    token_weights: Tensor | None = None,
) -> Tensor:
    """Mean loss through the whole logits matrix, in plain PyTorch."""
    check_inputs(hidden, weight, labels, softcap, label_smoothing, token_weights)
    computed = torch.promote_types(hidden.dtype, torch.float32)
    logits_nv = (hidden.reshape(-1, hidden.shape[-1]) @ weight.T).to(computed)
    if softcap is not None:
        logits_nv = softcap * torch.tanh(logits_nv / softcap)
    weights_n = _weights(labels, ignore_index, token_weights, computed)
    labels_n = labels.reshape(-1).masked_fill(weights_n == 0, 0)
    lse_n = logits_nv.logsumexp(dim=-1)
    chosen_n = logits_nv.gather(-1, labels_n.unsqueeze(-1)).squeeze(-1)
    losses_n = lse_n - (1 - label_smoothing) * chosen_n + z_loss * lse_n.square()
    if label_smoothing:
        losses_n = losses_n - label_smoothing * logits_nv.mean(dim=-1)
    return (losses_n * weights_n).masked_fill(weights_n == 0, 0.0).sum() * _inverse(weights_n.sum())


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    ignore_index: int = -100,
    softcap: float | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    token_weights: Tensor | None = None,
) -> Tensor:
    """Mean loss of ``hidden @ weight.T`` against `labels`; `token_weights` is a constant (no gradient).

    Raises ValueError for shapes, dtypes or settings that do not fit.
    """
    if not runs_on(hidden):
        return reference(
            hidden,
            weight,
            labels,
            ignore_index=ignore_index,
            softcap=softcap,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            token_weights=token_weights,
        )
    if torch.is_autocast_enabled(hidden.device.type) and hidden.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    check_inputs(hidden, weight, labels, softcap, label_smoothing, token_weights)
    hidden_nh = hidden.reshape(-1, hidden.shape[-1])
    weights_n = _weights(
        labels, ignore_index, token_weights, torch.promote_types(hidden.dtype, torch.float32)
    )
    settings = _Settings(0.0 if softcap is None else float(softcap), float(label_smoothing), float(z_loss))
    return _fused(hidden_nh, weight, labels.reshape(-1).contiguous(), weights_n, settings)


@dataclass(frozen=True)
class _Settings:
    softcap: float  # 0 is none
    label_smoothing: float
    z_loss: float


def _fused(
    hidden_nh: Tensor, weight_vh: Tensor, labels_n: Tensor, weights_n: Tensor, settings: _Settings
) -> Tensor:
    wanted = torch.is_grad_enabled()
    wants = (wanted and hidden_nh.requires_grad, wanted and weight_vh.requires_grad)
    loss: Tensor = _LinearCrossEntropy.apply(hidden_nh, weight_vh, labels_n, weights_n, settings, wants)
    return loss


# A compiled model may end here: nothing in this function is left for a compiler to fuse, and its chunk loop
# and in-place gradients would be unrolled and copied.
_fused = torch.compiler.disable(_fused)


def check_inputs(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    softcap: float | None,
    label_smoothing: float,
    token_weights: Tensor | None = None,
) -> None:
    """Raise ValueError unless shapes, dtypes and devices fit together and the settings are in their range."""
    if weight.dim() != 2 or hidden.dim() == 0 or hidden.shape[-1] != weight.shape[1]:
        shapes = f"hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)}"
        raise ValueError(f"{shapes}: they are (..., H) and (V, H)")
    if hidden.dtype != weight.dtype or not hidden.is_floating_point():
        raise ValueError(f"hidden is {hidden.dtype} and weight {weight.dtype}; give both one floating dtype")
    if labels.shape != hidden.shape[:-1] or labels.dtype != torch.int64:
        found = f"labels {labels.dtype} {tuple(labels.shape)}"
        raise ValueError(f"{found}: one torch.int64 per row of hidden, {tuple(hidden.shape[:-1])}")
    if softcap is not None and not (softcap > 0 and math.isfinite(softcap)):
        raise ValueError(f"softcap: {softcap}; a positive number, or None for none")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing: {label_smoothing}; a number from 0 to 1")
    if token_weights is not None and token_weights.shape != labels.shape:
        shapes = f"token_weights {tuple(token_weights.shape)}, labels {tuple(labels.shape)}"
        raise ValueError(f"{shapes}: one weight per label")
    if token_weights is not None and token_weights.requires_grad:
        raise ValueError("token_weights requires a gradient, which is not computed; detach it")
    check_one_device(hidden=hidden, weight=weight, labels=labels, token_weights=token_weights)


def _weights(labels: Tensor, ignore_index: int, token_weights: Tensor | None, dtype: torch.dtype) -> Tensor:
    """(N,): each token's weight, 0 where its label is ignored."""
    counted_n = (labels != ignore_index).reshape(-1)
    if token_weights is None:
        return counted_n.to(dtype)
    return token_weights.reshape(-1).to(dtype).masked_fill(~counted_n, 0.0)


def _inverse(total: Tensor) -> Tensor:
    """1 / total, and 0 for 0, so that a batch without labels neither learns nor poisons the weights."""
    return torch.where(total == 0, 0.0, 1.0 / torch.where(total == 0, 1.0, total))


def _tokens_per_chunk(tokens: int, vocabulary: int) -> int:
    """Tokens in a chunk: equal chunks, a multiple of 128 (the widest matrix tile) unless there is only one."""
    logits = min(max(tokens * vocabulary // CHUNKS, FEWEST_LOGITS), MOST_LOGITS)
    most = max(logits // vocabulary // 128 * 128, 128)
    if tokens <= most:
        return tokens
    return cdiv(cdiv(tokens, cdiv(tokens, most)), 128) * 128


class _LinearCrossEntropy(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any,
        hidden_nh: Tensor,
        weight_vh: Tensor,
        labels_n: Tensor,
        weights_n: Tensor,
        settings: _Settings,
        wants: tuple[bool, bool],
    ) -> Tensor:
        losses_n, grad_hidden_nh, grad_weight_vh = _losses_and_gradients(
            hidden_nh, weight_vh, labels_n, weights_n, settings, wants
        )
        inverse = _inverse(weights_n.sum())
        ctx.weight_divisor = _weight_divisor(hidden_nh.shape[0])
        ctx.save_for_backward(grad_hidden_nh, grad_weight_vh, inverse)
        return losses_n.sum() * inverse

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        grad_hidden_nh, grad_weight_vh, inverse = ctx.saved_tensors
        scale = grad_loss * inverse
        # A graph that is kept may ask again, for another grad_loss: only a last pass may write in place.
        keep = graph_is_kept()
        return (
            _scaled(grad_hidden_nh, scale, keep),
            _scaled(grad_weight_vh, scale * ctx.weight_divisor, keep),
            None,
            None,
            None,
            None,
        )


def _weight_divisor(tokens: int) -> float:
    """What dW is divided by while it accumulates, about sqrt(N): in float16 neither the sum of N tokens
    overflows nor the share of one vanishes. A power of two, so that nothing is rounded by it."""
    return float(2 ** (max(tokens - 1, 0).bit_length() // 2))


def _losses_and_gradients(
    hidden_nh: Tensor,
    weight_vh: Tensor,
    labels_n: Tensor,
    weights_n: Tensor,
    settings: _Settings,
    wants: tuple[bool, bool],
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Weighted losses (N,), and of their sum the gradients dh (N, H) and dW / divisor (V, H), where wanted."""
    wants_hidden, wants_weight = wants
    tokens, vocabulary = hidden_nh.shape[0], weight_vh.shape[0]
    losses_n = torch.zeros_like(weights_n)
    grad_hidden_nh = torch.empty(hidden_nh.shape, **_like(hidden_nh)) if wants_hidden else None
    grad_weight_vh = torch.empty(weight_vh.shape, **_like(weight_vh)) if wants_weight else None
    if tokens == 0:
        return losses_n, grad_hidden_nh, None if grad_weight_vh is None else grad_weight_vh.zero_()
    size = _tokens_per_chunk(tokens, vocabulary)
    row_size = cdiv(vocabulary, ROW_MULTIPLE) * ROW_MULTIPLE
    buffer_cv = torch.empty((size, row_size), **_like(hidden_nh))[:, :vocabulary]
    divisor = _weight_divisor(tokens)
    for start in range(0, tokens, size):
        chunk = slice(start, min(start + size, tokens))
        hidden_ch = hidden_nh[chunk]
        logits_cv = buffer_cv[: hidden_ch.shape[0]]
        torch.mm(hidden_ch, weight_vh.T, out=logits_cv)
        _launch(logits_cv, labels_n[chunk], weights_n[chunk], losses_n[chunk], settings, any(wants))
        if grad_hidden_nh is not None:
            torch.mm(logits_cv, weight_vh, out=grad_hidden_nh[chunk])
        if grad_weight_vh is not None:
            beta = 0 if start == 0 else 1
            grad_weight_vh.addmm_(logits_cv.T, hidden_ch, beta=beta, alpha=1 / divisor)
    return losses_n, grad_hidden_nh, grad_weight_vh


def _like(tensor: Tensor) -> dict[str, Any]:
    return {"dtype": tensor.dtype, "device": tensor.device}


def _launch(
    logits_cv: Tensor,
    labels_c: Tensor,
    weights_c: Tensor,
    losses_c: Tensor,
    settings: _Settings,
    wants_gradient: bool,
) -> None:
    """Write the losses, and over the logits their gradient if it is wanted.

    What lies between the end of a row and the beginning of the next is overwritten too.
    """
    rows, vocabulary = logits_cv.shape
    block = min(next_power_of_2(logits_cv.stride(0)), BLOCK)
    with device_of(logits_cv):
        _loss_kernel[(rows,)](
            logits_cv,
            labels_c,
            weights_c,
            losses_c,
            vocabulary,
            logits_cv.stride(0),
            settings.softcap,
            settings.label_smoothing,
            settings.z_loss,
            CAPPED=settings.softcap > 0,
            WANTS_GRADIENT=wants_gradient,
            ACC=accumulation_type(logits_cv),
            BLOCK=block,
            STAGES=stages_of(block, logits_cv.element_size()),
            num_warps=min(max(block // 512, 1), 16),
        )


def _scaled(grad: Tensor | None, scale: Tensor, keep: bool) -> Tensor | None:
    """grad * scale, computed in float32 (a product of tensors would first round scale to grad's dtype)."""
    if grad is None:
        return None
    scaled = torch.empty_like(grad) if keep else grad
    if grad.numel():
        with device_of(grad):
            _scale_kernel[(cdiv(grad.numel(), BLOCK),)](
                grad, scaled, scale, grad.numel(), ACC=accumulation_type(grad), BLOCK=BLOCK, num_warps=8
            )
    return scaled


@jit
def _capped(z: tl.tensor, softcap: tl.tensor) -> tl.tensor:
    """softcap * tanh(z / softcap); tl has no tanh."""
    e = tl.exp(-2.0 * tl.abs(z / softcap))
    size = softcap * (1.0 - e) / (1.0 + e)
    return tl.where(z < 0, -size, size)


@jit
def _cap_slope(z: tl.tensor, softcap: tl.tensor) -> tl.tensor:
    """1 - tanh(z / softcap)^2, without the difference, which is all rounding where the cap holds."""
    e = tl.exp(-2.0 * tl.abs(z / softcap))
    return 4.0 * e / ((1.0 + e) * (1.0 + e))


@jit
def _loss_kernel(
    logits_ptr: tl.tensor,
    labels_ptr: tl.tensor,
    weights_ptr: tl.tensor,
    losses_ptr: tl.tensor,
    vocabulary: tl.tensor,
    row_size: tl.tensor,
    softcap: tl.tensor,
    label_smoothing: tl.tensor,
    z_loss: tl.tensor,
    CAPPED: tl.constexpr,  # noqa: N803
    WANTS_GRADIENT: tl.constexpr,  # noqa: N803
    ACC: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
    STAGES: tl.constexpr,  # noqa: N803
) -> None:
    row = tl.program_id(0).to(tl.int64)
    row_ptr = logits_ptr + row * row_size
    weight = tl.load(weights_ptr + row)
    if weight == 0.0:
        if WANTS_GRADIENT:
            for start in range(0, row_size, BLOCK):
                columns = start + tl.arange(0, BLOCK)
                zeros = tl.zeros((BLOCK,), logits_ptr.dtype.element_ty)
                tl.store(row_ptr + columns, zeros, mask=columns < row_size)
    else:
        label = tl.load(labels_ptr + row)
        exists = (label >= 0) & (label < vocabulary)
        chosen = tl.load(row_ptr + label, mask=exists, other=float("nan")).to(ACC)
        if CAPPED:
            chosen = _capped(chosen, softcap)
        maximum = tl.full((), float("-inf"), ACC)
        total = tl.full((), 0.0, ACC)
        z_sum = tl.full((), 0.0, ACC)
        for start in tl.range(0, row_size, BLOCK, num_stages=STAGES):
            columns = start + tl.arange(0, BLOCK)
            inside = columns < vocabulary
            z = tl.load(row_ptr + columns, mask=columns < row_size, other=0.0).to(ACC)
            z = tl.where(inside, z, 0.0)
            if CAPPED:
                z = _capped(z, softcap)
            z_sum += tl.sum(z, axis=0)
            z = tl.where(inside, z, float("-inf"))
            new_maximum = tl.maximum(maximum, tl.max(z, axis=0))
            total = total * tl.exp(maximum - new_maximum) + tl.sum(tl.exp(z - new_maximum), axis=0)
            maximum = new_maximum
        # A label that does not exist is NaN from here on, in the gradient too.
        log_total = tl.where(exists, tl.log(total), float("nan"))
        lse = maximum + log_total
        # Not lse - z: where all logits are large, their sum with log_total would lose its digits.
        loss = log_total - (1.0 - label_smoothing) * (chosen - maximum)
        loss -= label_smoothing * (z_sum / vocabulary - maximum)
        tl.store(losses_ptr + row, weight * (loss + z_loss * lse * lse))
        if WANTS_GRADIENT:
            p_factor = 1.0 + 2.0 * z_loss * lse
            share = tl.full((), 1.0, ACC) * label_smoothing / vocabulary
            for start in range(0, row_size, BLOCK):
                columns = start + tl.arange(0, BLOCK)
                raw = tl.load(row_ptr + columns, mask=columns < row_size, other=0.0).to(ACC)
                z = raw
                if CAPPED:
                    z = _capped(raw, softcap)
                grad = p_factor * tl.exp(z - maximum - log_total) - share
                grad -= tl.where(columns == label, 1.0 - label_smoothing, 0.0)
                if CAPPED:
                    grad *= _cap_slope(raw, softcap)
                grad *= weight
                tl.store(row_ptr + columns, grad.to(logits_ptr.dtype.element_ty), mask=columns < row_size)


@jit
def _scale_kernel(
    grad_ptr: tl.tensor,
    scaled_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    count: tl.tensor,
    ACC: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
) -> None:
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < count
    grad = tl.load(grad_ptr + offsets, mask=inside, other=0.0).to(ACC)
    scaled = grad * tl.load(scale_ptr)
    tl.store(scaled_ptr + offsets, scaled.to(scaled_ptr.dtype.element_ty), mask=inside)
