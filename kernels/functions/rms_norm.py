"""RMSNorm, alone or together with the residual addition in front of it.

h = x + residual (h = x without one), rstd = 1 / sqrt(mean(h^2) + eps), y = h * rstd * (offset + weight).
`offset` is 0 in Llama, Qwen and Mistral, 1 in Gemma.

Shapes: x, residual, h, y: (..., n); weight: (n,). Dtypes: float32, bfloat16, float16 (statistics and product
in float32, y rounded once), float64; h and y have the type of x. h is rounded before it is normalised, as
when a model adds in a layer of its own.

Gradients, with dy that of y, dh that of h as it goes on along the residual stream, and w = dy (offset +
weight): dx = d_residual = rstd (w - h rstd^2 mean(w h)) + dh; d_weight = sum over rows of dy h rstd.

Source: Zhang and Sennrich, Root Mean Square Layer Normalization, https://arxiv.org/abs/1910.07467 (section 3).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tunemill.kernels.functions.gating import as_rows
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

# A whole row sits in one program's registers; beyond this it would spill (at this size up to 48 bytes do).
LARGEST_ROW = 16384
# Elements one program holds at a time: short rows (the head norms of Qwen3) go several to a program.
TILE = 2048
# Warps per multiprocessor whose programs each sum the weight gradient over many rows. As many as are resident
# at 80 registers a thread: with more, the last programs would run alone after all the others.
WARPS_PER_PROCESSOR = 24


def reference(
    x: Tensor, weight: Tensor, eps: float, *, residual: Tensor | None = None, offset: float = 0.0
) -> Tensor | tuple[Tensor, Tensor]:
    """y, or (y, h) with a residual, in plain PyTorch."""
    check_inputs(x, weight, residual)
    h = x if residual is None else (x + residual).to(x.dtype)
    compute = torch.float64 if x.dtype == torch.float64 else torch.float32
    wide = h.to(compute)
    rstd = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    y = (wide * rstd * (offset + weight.to(compute))).to(x.dtype)
    return y if residual is None else (y, h)


def rms_norm(
    x: Tensor, weight: Tensor, eps: float, *, residual: Tensor | None = None, offset: float = 0.0
) -> Tensor | tuple[Tensor, Tensor]:
    """The normalised y; with a residual, (y, h) where h = x + residual is the new residual."""
    if not runs_on(x) or x.shape[-1] > LARGEST_ROW:
        return reference(x, weight, eps, residual=residual, offset=offset)
    check_inputs(x, weight, residual)
    result: Tensor | tuple[Tensor, Tensor] = RMSNorm.apply(x, weight, residual, float(eps), float(offset))
    return result


def check_inputs(x: Tensor, weight: Tensor, residual: Tensor | None) -> None:
    """Raise ValueError unless the shapes fit."""
    if weight.shape != x.shape[-1:]:
        raise ValueError(f"weight must have shape {tuple(x.shape[-1:])}, got {tuple(weight.shape)}")
    if residual is not None and residual.shape != x.shape:
        raise ValueError(f"residual must have the shape of x, {tuple(x.shape)}, got {tuple(residual.shape)}")
    check_one_device(x=x, weight=weight, residual=residual)


@jit
def forward_kernel(
    x_ptr: tl.tensor,
    residual_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    y_ptr: tl.tensor,
    h_ptr: tl.tensor,
    rstd_ptr: tl.tensor,
    x_stride: tl.tensor,
    residual_stride: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    EPS: tl.constexpr,  # noqa: N803
    OFFSET: tl.constexpr,  # noqa: N803
    HAS_RESIDUAL: tl.constexpr,  # noqa: N803
    COMPUTE: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
) -> None:
    """ROWS rows: h, rstd and y."""
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    here = row[:, None] * columns + column[None, :]
    h = tl.load(x_ptr + row[:, None] * x_stride + column[None, :], mask=inside, other=0.0).to(COMPUTE)
    if HAS_RESIDUAL:
        source = residual_ptr + row[:, None] * residual_stride + column[None, :]
        h_rounded = (h + tl.load(source, mask=inside, other=0.0).to(COMPUTE)).to(h_ptr.dtype.element_ty)
        tl.store(h_ptr + here, h_rounded, mask=inside)
        h = h_rounded.to(COMPUTE)
    weight = tl.load(weight_ptr + column, mask=column < columns, other=0.0).to(COMPUTE) + OFFSET
    rstd = 1.0 / tl.sqrt(tl.sum(h * h, axis=1) / columns + EPS)
    tl.store(rstd_ptr + row, rstd, mask=row < rows)
    y = h * rstd[:, None] * weight[None, :]
    tl.store(y_ptr + here, y.to(y_ptr.dtype.element_ty), mask=inside)


@jit
def backward_kernel(
    grad_ptr: tl.tensor,
    grad_h_ptr: tl.tensor,
    h_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    rstd_ptr: tl.tensor,
    grad_x_ptr: tl.tensor,
    partial_ptr: tl.tensor,
    grad_stride: tl.tensor,
    grad_h_stride: tl.tensor,
    h_stride: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    OFFSET: tl.constexpr,  # noqa: N803
    HAS_GRAD_H: tl.constexpr,  # noqa: N803
    WEIGHT_GRAD: tl.constexpr,  # noqa: N803
    COMPUTE: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
) -> None:
    """Every so manyth tile of ROWS rows: the gradient of h, and these rows' share of that of the weight."""
    column = tl.arange(0, BLOCK)
    weight_grad = tl.zeros((ROWS, BLOCK), dtype=COMPUTE)
    for tile in range(tl.program_id(0), tl.cdiv(rows, ROWS), tl.num_programs(0)):
        row = (tile * ROWS + tl.arange(0, ROWS)).to(tl.int64)
        inside = (row < rows)[:, None] & (column < columns)[None, :]
        at = row[:, None]
        h = tl.load(h_ptr + at * h_stride + column[None, :], mask=inside, other=0.0).to(COMPUTE)
        grad = tl.load(grad_ptr + at * grad_stride + column[None, :], mask=inside, other=0.0).to(COMPUTE)
        rstd = tl.load(rstd_ptr + row, mask=row < rows, other=0.0)[:, None]
        normal = h * rstd
        if WEIGHT_GRAD:
            weight_grad += grad * normal
        # Read again for every row, from the nearest cache: kept, it would cost 16 registers a thread.
        weight = tl.load(weight_ptr + column, mask=column < columns, other=0.0).to(COMPUTE) + OFFSET
        grad *= weight[None, :]
        along = (tl.sum(grad * normal, axis=1) / columns)[:, None]
        grad_x = rstd * (grad - normal * along)
        if HAS_GRAD_H:
            source = grad_h_ptr + at * grad_h_stride + column[None, :]
            grad_x += tl.load(source, mask=inside, other=0.0).to(COMPUTE)
        target = grad_x_ptr + at * columns + column[None, :]
        tl.store(target, grad_x.to(grad_x_ptr.dtype.element_ty), mask=inside)
    if WEIGHT_GRAD:
        target = partial_ptr + tl.program_id(0).to(tl.int64) * columns + column
        tl.store(target, tl.sum(weight_grad, axis=0), mask=column < columns)


def tile_shape(columns: int) -> dict[str, int]:
    """Rows and columns one program holds, and its warps: about 16 elements to a thread."""
    block = next_power_of_2(columns)
    rows = max(1, TILE // block)
    return {"ROWS": rows, "BLOCK": block, "num_warps": min(16, max(4, rows * block // 512))}


def persistent_programs(x: Tensor, tiles: int, warps: int) -> int:
    """How many programs share the tiles of a weight gradient; off the GPU few, so that tests see the loop."""
    if not x.is_cuda:
        return min(tiles, 2)
    processors: int = torch.cuda.get_device_properties(x.device).multi_processor_count
    return min(tiles, processors * max(1, WARPS_PER_PROCESSOR // warps))


class RMSNorm(torch.autograd.Function):  # type: ignore[misc]
    """Saves h (x itself without a residual) and one rstd per row."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, residual: Tensor | None, eps: float, offset: float
    ) -> Tensor | tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        x_mn, weight = as_rows(x), weight.contiguous()
        residual_mn = x_mn if residual is None else as_rows(residual)
        rows, columns = x_mn.shape
        compute = torch.float64 if x.dtype == torch.float64 else torch.float32
        y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        h = y if residual is None else torch.empty(x.shape, dtype=x.dtype, device=x.device)
        rstd_m = torch.empty(rows, dtype=compute, device=x.device)
        shape = tile_shape(columns)
        if x.numel():
            with device_of(x):
                forward_kernel[(cdiv(rows, shape["ROWS"]),)](
                    x_mn,
                    residual_mn,
                    weight,
                    y,
                    h,
                    rstd_m,
                    x_mn.stride(0),
                    residual_mn.stride(0),
                    rows,
                    columns,
                    EPS=eps,
                    OFFSET=offset,
                    HAS_RESIDUAL=residual is not None,
                    COMPUTE=accumulation_type(x),
                    **shape,
                )
        ctx.save_for_backward(x if residual is None else h, weight, rstd_m)
        ctx.offset = offset
        ctx.residual_dtype = None if residual is None else residual.dtype
        return y if residual is None else (y, h)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(
        ctx: Any, grad: Tensor | None, grad_h: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        h, weight, rstd_m = ctx.saved_tensors
        if grad is None and grad_h is None:
            return None, None, None, None, None
        grad_mn = as_rows(torch.zeros_like(h) if grad is None else grad)
        grad_x, grad_weight = run_backward(
            grad_mn, None if grad_h is None else as_rows(grad_h), h, weight, rstd_m, ctx
        )
        grad_residual = grad_x.to(ctx.residual_dtype) if ctx.needs_input_grad[2] else None
        return (grad_x if ctx.needs_input_grad[0] else None), grad_weight, grad_residual, None, None


def run_backward(
    grad_mn: Tensor, grad_h_mn: Tensor | None, h: Tensor, weight: Tensor, rstd_m: Tensor, ctx: Any
) -> tuple[Tensor, Tensor | None]:
    """Gradients of x and, if asked for, of weight (partial sums per program, added up in float32)."""
    h_mn = as_rows(h)
    rows, columns = h_mn.shape
    grad_x = torch.empty(h.shape, dtype=h.dtype, device=h.device)
    weight_grad: bool = ctx.needs_input_grad[1]
    if h.numel() == 0:
        return grad_x, torch.zeros_like(weight) if weight_grad else None
    shape = tile_shape(columns)
    tiles = cdiv(rows, shape["ROWS"])
    programs = persistent_programs(h, tiles, shape["num_warps"]) if weight_grad else tiles
    partial_pn = torch.empty((programs if weight_grad else 1, columns), dtype=rstd_m.dtype, device=h.device)
    with device_of(h):
        backward_kernel[(programs,)](
            grad_mn,
            grad_mn if grad_h_mn is None else grad_h_mn,
            h_mn,
            weight,
            rstd_m,
            grad_x,
            partial_pn,
            grad_mn.stride(0),
            grad_mn.stride(0) if grad_h_mn is None else grad_h_mn.stride(0),
            h_mn.stride(0),
            rows,
            columns,
            OFFSET=ctx.offset,
            HAS_GRAD_H=grad_h_mn is not None,
            WEIGHT_GRAD=weight_grad,
            COMPUTE=accumulation_type(h),
            **shape,
        )
    return grad_x, partial_pn.sum(0).to(weight.dtype) if weight_grad else None
