"""SwiGLU: y = silu(gate) * up, with silu(g) = g * s and s = 1 / (1 + exp(-g)).

Shapes: gate, up, y: (..., n), n the intermediate size. Dtypes: float32, bfloat16, float16 (computed in
float32, rounded once), float64; gate and up may differ, y has the type they promote to.

Gradients, with dy that of y: d_up = dy * g * s; d_gate = dy * up * s * (1 + g * (1 - s)). They are written
over gate and up when nothing can read those again (see `gating.may_overwrite`): a later read through
autograd raises, and a tensor kept by hand holds gradients after the backward.

Source: Shazeer, GLU Variants Improve Transformer, https://arxiv.org/abs/2002.05202 (section 2).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tunemill.kernels.functions import gating
from tunemill.kernels.functions.triton_runtime import jit, runs_on, tl


def reference(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up in plain PyTorch."""
    gating.check_gate_and_up(gate, up)
    return torch.nn.functional.silu(gate) * up


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up; raises ValueError when the shapes differ."""
    if not runs_on(gate):
        return reference(gate, up)
    gating.check_gate_and_up(gate, up)
    return SwiGLU.apply(gate, up)


@jit
def forward_kernel(
    gate_ptr: tl.tensor,
    up_ptr: tl.tensor,
    out_ptr: tl.tensor,
    gate_stride: tl.tensor,
    up_stride: tl.tensor,
    out_stride: tl.tensor,
    columns: tl.tensor,
    blocks_per_row: tl.tensor,
    COMPUTE: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
) -> None:
    """One block of one row: y."""
    program = tl.program_id(0)
    row = (program // blocks_per_row).to(tl.int64)
    column = (program % blocks_per_row).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = column < columns
    gate = tl.load(gate_ptr + row * gate_stride + column, mask=inside, other=0.0).to(COMPUTE)
    up = tl.load(up_ptr + row * up_stride + column, mask=inside, other=0.0).to(COMPUTE)
    out = gate * tl.sigmoid(gate) * up
    tl.store(out_ptr + row * out_stride + column, out.to(out_ptr.dtype.element_ty), mask=inside)


@jit
def backward_kernel(
    grad_ptr: tl.tensor,
    gate_ptr: tl.tensor,
    up_ptr: tl.tensor,
    grad_gate_ptr: tl.tensor,
    grad_up_ptr: tl.tensor,
    hidden_ptr: tl.tensor,
    grad_stride: tl.tensor,
    gate_stride: tl.tensor,
    up_stride: tl.tensor,
    grad_gate_stride: tl.tensor,
    grad_up_stride: tl.tensor,
    hidden_stride: tl.tensor,
    columns: tl.tensor,
    blocks_per_row: tl.tensor,
    COMPUTE: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
    WRITE_HIDDEN: tl.constexpr,  # noqa: N803
) -> None:
    """One block of one row: the gradients of gate and up, and if asked for y once more."""
    program = tl.program_id(0)
    row = (program // blocks_per_row).to(tl.int64)
    column = (program % blocks_per_row).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = column < columns
    grad = tl.load(grad_ptr + row * grad_stride + column, mask=inside, other=0.0).to(COMPUTE)
    gate = tl.load(gate_ptr + row * gate_stride + column, mask=inside, other=0.0).to(COMPUTE)
    up = tl.load(up_ptr + row * up_stride + column, mask=inside, other=0.0).to(COMPUTE)
    sigmoid = tl.sigmoid(gate)
    activated = gate * sigmoid
    grad_gate = grad * up * sigmoid * (1.0 + gate * (1.0 - sigmoid))
    grad_up = grad * activated
    tl.store(
        grad_gate_ptr + row * grad_gate_stride + column,
        grad_gate.to(grad_gate_ptr.dtype.element_ty),
        mask=inside,
    )
    tl.store(
        grad_up_ptr + row * grad_up_stride + column, grad_up.to(grad_up_ptr.dtype.element_ty), mask=inside
    )
    if WRITE_HIDDEN:
        hidden = (activated * up).to(hidden_ptr.dtype.element_ty)
        tl.store(hidden_ptr + row * hidden_stride + column, hidden, mask=inside)


class SwiGLU(torch.autograd.Function):  # type: ignore[misc]
    """Saves gate and up, overwrites them with their gradients where that is safe."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.overwrite = gating.overwritable(gate, up)
        return gating.forward(forward_kernel, gate, up)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        over_gate, over_up = (False, False) if gating.graph_is_kept() else ctx.overwrite
        return gating.backward(
            backward_kernel, grad, gate, up, overwrite_gate=over_gate, overwrite_up=over_up
        )
