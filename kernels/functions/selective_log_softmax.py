"""Log probability of chosen tokens, without the log-softmax of all the others.

With z the logits of one row, i a chosen token and g_i the gradient of its log probability:

    lse      = log sum_v exp(z_v)
    log p_i  = z_i - lse
    dL/dz_v  = sum_i g_i [v = i] - exp(z_v - lse) sum_i g_i

Shapes: logits (..., V) of any strides; index (...) or (..., K), integers in [0, V); the result has index's shape.
The logits are read as they are (float64, float32, bfloat16, float16); sums and result are float32 (float64 for
float64), the gradient has the logits' dtype. In the backward, rows without a gradient (masked tokens) are not read.

The kernel cannot raise without waiting for the device: an index outside [0, V) gives NaN there, an error on a CPU.

Source: the online maximum is that of Milakov and Gimelshein 2018, "Online normalizer calculation for softmax"
(arXiv 1805.02867).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tunemill.kernels.functions.logit_rows import block_of, logit_rows, stages_of
from tunemill.kernels.functions.triton_runtime import (
    accumulation_type,
    cdiv,
    check_one_device,
    device_of,
    jit,
    runs_on,
    tl,
)


def reference(logits: Tensor, index: Tensor) -> Tensor:
    """``log_softmax(logits, -1)`` at `index`, in plain PyTorch."""
    _check(logits, index)
    log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)
    if index.dim() == logits.dim():
        return log_p.gather(-1, index)
    return log_p.gather(-1, index.unsqueeze(-1)).squeeze(-1)


def selective_log_softmax(logits: Tensor, index: Tensor) -> Tensor:
    """Log probabilities of `index` (...) or (..., K) under softmax(logits (..., V)), float32 or float64."""
    if not runs_on(logits):
        return reference(logits, index)
    _check(logits, index)
    log_p: Tensor = _SelectiveLogSoftmax.apply(logits, index.contiguous())
    return log_p


def _check(logits: Tensor, index: Tensor) -> None:
    rows = logits.shape[:-1]
    if index.shape[: len(rows)] != rows or index.dim() - len(rows) not in (0, 1):
        shapes = f"index {tuple(index.shape)}, logits {tuple(logits.shape)}"
        raise ValueError(f"{shapes}: index has the shape of logits without its last dimension, or one more")
    if index.dtype != torch.int64:
        raise ValueError(f"index: {index.dtype}; token ids are torch.int64")
    check_one_device(logits=logits, index=index)


class _SelectiveLogSoftmax(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, logits: Tensor, index: Tensor) -> Tensor:
        rows = logit_rows(logits)
        dtype = torch.promote_types(logits.dtype, torch.float32)
        log_p = torch.empty(index.shape, dtype=dtype, device=logits.device)
        maxima = torch.empty(rows.count, dtype=dtype, device=logits.device)
        log_totals = torch.empty_like(maxima)
        if rows.count:
            block, warps = block_of(rows.vocabulary)
            with device_of(logits):
                _forward_kernel[(rows.count,)](
                    rows.logits,
                    index,
                    log_p,
                    maxima,
                    log_totals,
                    index.numel() // rows.count,
                    *rows.layout,
                    ACC=accumulation_type(logits),
                    BLOCK=block,
                    STAGES=stages_of(block, logits.element_size()),
                    num_warps=warps,
                )
        ctx.save_for_backward(logits, index, maxima, log_totals)
        return log_p

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_log_p: Tensor) -> tuple[Tensor, None]:
        logits, index, maxima, log_totals = ctx.saved_tensors
        rows = logit_rows(logits)
        grad_logits = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
        if rows.count:
            block, warps = block_of(rows.vocabulary)
            with device_of(logits):
                _backward_kernel[(rows.count, cdiv(rows.vocabulary, block))](
                    rows.logits,
                    index,
                    maxima,
                    log_totals,
                    grad_log_p.contiguous(),
                    grad_logits,
                    index.numel() // rows.count,
                    *rows.layout,
                    ACC=accumulation_type(logits),
                    BLOCK=block,
                    num_warps=warps,
                )
        return grad_logits, None


@jit
def _forward_kernel(
    logits_ptr: tl.tensor,
    index_ptr: tl.tensor,
    log_p_ptr: tl.tensor,
    maxima_ptr: tl.tensor,
    log_totals_ptr: tl.tensor,
    chosen: tl.tensor,
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
    total = tl.full((), 0.0, ACC)
    for start in tl.range(0, vocabulary, BLOCK, num_stages=STAGES):
        columns = (start + tl.arange(0, BLOCK)).to(tl.int64)
        z = tl.load(row_ptr + columns * vocabulary_stride, mask=columns < vocabulary, other=float("-inf")).to(
            ACC
        )
        new_maximum = tl.maximum(maximum, tl.max(z, axis=0))
        # While every logit so far is -inf there is no maximum to subtract: -inf - -inf is not a number.
        shift = tl.where(new_maximum == float("-inf"), 0.0, new_maximum)
        total = total * tl.exp(maximum - shift) + tl.sum(tl.exp(z - shift), axis=0)
        maximum = new_maximum
    # Kept apart: where all logits are large, the sum of both would lose the digits of the second.
    log_total = tl.log(total)
    tl.store(maxima_ptr + row, maximum)
    tl.store(log_totals_ptr + row, log_total)
    for k in range(chosen):
        token = tl.load(index_ptr + row * chosen + k)
        exists = (token >= 0) & (token < vocabulary)
        z = tl.load(row_ptr + token * vocabulary_stride, mask=exists, other=float("nan")).to(ACC)
        tl.store(log_p_ptr + row * chosen + k, z - maximum - log_total)


@jit
def _backward_kernel(
    logits_ptr: tl.tensor,
    index_ptr: tl.tensor,
    maxima_ptr: tl.tensor,
    log_totals_ptr: tl.tensor,
    grad_log_p_ptr: tl.tensor,
    grad_logits_ptr: tl.tensor,
    chosen: tl.tensor,
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
    grad_sum = tl.full((), 0.0, ACC)
    grad = tl.zeros((BLOCK,), ACC)
    for k in range(chosen):
        grad_k = tl.load(grad_log_p_ptr + row * chosen + k)
        grad_sum += grad_k
        grad += tl.where(columns == tl.load(index_ptr + row * chosen + k), grad_k, 0.0)
    row_ptr = logits_ptr + (row // inner) * outer_stride + (row % inner) * inner_stride
    wanted = columns < tl.where(grad_sum == 0.0, 0, vocabulary)
    z = tl.load(row_ptr + columns * vocabulary_stride, mask=wanted, other=float("-inf")).to(ACC)
    p = tl.exp(z - tl.load(maxima_ptr + row) - tl.load(log_totals_ptr + row))
    grad -= tl.where(wanted, p * grad_sum, 0.0)
    tl.store(
        grad_logits_ptr + row * vocabulary + columns,
        grad.to(grad_logits_ptr.dtype.element_ty),
        mask=inside,
    )
