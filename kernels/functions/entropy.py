"""Entropy of the softmax of logits, from one reading of them.

With z the logits of one row, m = max z and lse = log sum_v exp(z_v):

    p_v  = exp(z_v - lse)
    H    = -sum_v p_v log p_v = log s_0 - s_1 / s_0,   s_k = sum_v exp(z_v - m) (z_v - m)^k
    dH/dz_v = -p_v (log p_v + H)

s_0 and s_1 are accumulated online: when the maximum rises by d, s_1 becomes exp(-d) (s_1 - d s_0).

Shapes: logits (..., V) of any strides, H (...). The logits are read as they are (float64, float32, bfloat16,
float16); sums and result are float32 (float64 for float64), the gradient has the logits' dtype. A logit of -inf
has probability 0 and adds 0.

Sources: Shannon 1948, "A Mathematical Theory of Communication"; the online maximum is that of Milakov and
Gimelshein 2018, "Online normalizer calculation for softmax" (arXiv 1805.02867).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tunemill.kernels.functions.logit_rows import block_of, logit_rows, stages_of
from tunemill.kernels.functions.triton_runtime import accumulation_type, cdiv, device_of, jit, runs_on, tl


def reference(logits: Tensor) -> Tensor:
    """Entropy in nats of each row, in plain PyTorch."""
    computed = logits.to(torch.promote_types(logits.dtype, torch.float32))
    log_p = computed.log_softmax(dim=-1)
    p = log_p.exp()
    return -(p * log_p.masked_fill(p == 0, 0.0)).sum(dim=-1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of softmax(logits): (..., V) to (...), float32 (float64 for float64)."""
    if not runs_on(logits):
        return reference(logits)
    entropies: Tensor = _Entropy.apply(logits)
    return entropies


class _Entropy(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        rows = logit_rows(logits)
        dtype = torch.promote_types(logits.dtype, torch.float32)
        entropies = torch.empty(logits.shape[:-1], dtype=dtype, device=logits.device)
        maxima, log_totals = torch.empty_like(entropies), torch.empty_like(entropies)
        if rows.count:
            block, warps = block_of(rows.vocabulary)
            with device_of(logits):
                _forward_kernel[(rows.count,)](
                    rows.logits,
                    entropies,
                    maxima,
                    log_totals,
                    *rows.layout,
                    ACC=accumulation_type(logits),
                    BLOCK=block,
                    STAGES=stages_of(block, logits.element_size()),
                    num_warps=warps,
                )
        ctx.save_for_backward(logits, entropies, maxima, log_totals)
        return entropies

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_entropies: Tensor) -> Tensor:
        logits, entropies, maxima, log_totals = ctx.saved_tensors
        rows = logit_rows(logits)
        grad_logits = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
        if rows.count:
            block, warps = block_of(rows.vocabulary)
            with device_of(logits):
                _backward_kernel[(rows.count, cdiv(rows.vocabulary, block))](
                    rows.logits,
                    entropies,
                    maxima,
                    log_totals,
                    grad_entropies.contiguous(),
                    grad_logits,
                    *rows.layout,
                    ACC=accumulation_type(logits),
                    BLOCK=block,
                    num_warps=warps,
                )
        return grad_logits


@jit
def _forward_kernel(
    logits_ptr: tl.tensor,
    entropies_ptr: tl.tensor,
    maxima_ptr: tl.tensor,
    log_totals_ptr: tl.tensor,
    inner: tl.tensor,
    outer_stride: tl.tensor,
    inner_stride: tl.tensor,
    vocabulary: tl.tensor,
    vocabulary_stride: tl.tensor,
    ACC: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
    STAGES: tl.constexpr,  # noqa: N803
) -> None:
    row = tl.program_id(0).to(tl.int64)
    row_ptr = logits_ptr + (row // inner) * outer_stride + (row % inner) * inner_stride
    maximum = tl.full((), float("-inf"), ACC)
    s_0 = tl.full((), 0.0, ACC)
    s_1 = tl.full((), 0.0, ACC)
    for start in tl.range(0, vocabulary, BLOCK, num_stages=STAGES):
        columns = (start + tl.arange(0, BLOCK)).to(tl.int64)
        z = tl.load(row_ptr + columns * vocabulary_stride, mask=columns < vocabulary, other=float("-inf")).to(
            ACC
        )
        new_maximum = tl.maximum(maximum, tl.max(z, axis=0))
        # While every logit so far is -inf there is no maximum to subtract: -inf - -inf is not a number.
        shift = tl.where(new_maximum == float("-inf"), 0.0, new_maximum)
        rise = tl.where(maximum == float("-inf"), 0.0, shift - maximum)
        decay = tl.exp(-rise)
        below = z - shift
        e = tl.exp(below)
        s_1 = decay * (s_1 - rise * s_0) + tl.sum(tl.where(z == float("-inf"), 0.0, e * below), axis=0)
        s_0 = decay * s_0 + tl.sum(e, axis=0)
        maximum = new_maximum
    tl.store(entropies_ptr + row, tl.log(s_0) - s_1 / s_0)
    # Kept apart: where all logits are large, their sum would lose the digits of the second.
    tl.store(maxima_ptr + row, maximum)
    tl.store(log_totals_ptr + row, tl.log(s_0))


@jit
def _backward_kernel(
    logits_ptr: tl.tensor,
    entropies_ptr: tl.tensor,
    maxima_ptr: tl.tensor,
    log_totals_ptr: tl.tensor,
    grad_entropies_ptr: tl.tensor,
    grad_logits_ptr: tl.tensor,
    inner: tl.tensor,
    outer_stride: tl.tensor,
    inner_stride: tl.tensor,
    vocabulary: tl.tensor,
    vocabulary_stride: tl.tensor,
    ACC: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
) -> None:
    row = tl.program_id(0).to(tl.int64)
    columns = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    inside = columns < vocabulary
    row_ptr = logits_ptr + (row // inner) * outer_stride + (row % inner) * inner_stride
    z = tl.load(row_ptr + columns * vocabulary_stride, mask=inside, other=float("-inf")).to(ACC)
    log_p = z - tl.load(maxima_ptr + row) - tl.load(log_totals_ptr + row)
    entropy = tl.load(entropies_ptr + row)
    grad = -tl.load(grad_entropies_ptr + row) * tl.exp(log_p) * (log_p + entropy)
    grad = tl.where(z == float("-inf"), 0.0, grad)
    tl.store(
        grad_logits_ptr + row * vocabulary + columns,
        grad.to(grad_logits_ptr.dtype.element_ty),
        mask=inside,
    )
