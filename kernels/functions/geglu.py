"""GeGLU: y = gelu(gate) * up, with gelu(g) = g * c(g).

`approximate="none"`: c(g) = (1 + erf(g / sqrt 2)) / 2, the normal distribution function, and
gelu'(g) = c(g) + g * exp(-g^2 / 2) / sqrt(2 pi).
`approximate="tanh"`: c(g) = (1 + tanh(z)) / 2 = sigmoid(2 z) with z = sqrt(2 / pi) * (g + 0.044715 g^3), and
gelu'(g) = c + 2 g c (1 - c) z'(g).

Shapes: gate, up, y: (..., n), n the intermediate size. Dtypes: float32, bfloat16, float16 (computed in
float32, rounded once), float64; gate and up may differ, y has the type they promote to.

Gradients, with dy that of y: d_up = dy * gelu(g); d_gate = dy * up * gelu'(g). They are written over gate and
up when nothing can read those again (see `gating.may_overwrite`): a later read through autograd raises, and
a tensor kept by hand holds gradients after the backward.

Sources: Shazeer, GLU Variants Improve Transformer, https://arxiv.org/abs/2002.05202 (section 2); Hendrycks
and Gimpel, Gaussian Error Linear Units, https://arxiv.org/abs/1606.08415 (section 2, for the tanh form).
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tunemill.kernels.functions import gating
from tunemill.kernels.functions.triton_runtime import jit, runs_on, tl

Approximation = Literal["none", "tanh"]


def reference(gate: Tensor, up: Tensor, approximate: Approximation = "none") -> Tensor:
    """gelu(gate) * up in plain PyTorch."""
    gating.check_gate_and_up(gate, up)
    return torch.nn.functional.gelu(gate, approximate=approximate) * up


def geglu(gate: Tensor, up: Tensor, approximate: Approximation = "none") -> Tensor:
    """gelu(gate) * up; raises ValueError when the shapes differ or `approximate` is unknown."""
    if approximate not in get_args(Approximation):
        raise ValueError(f"approximate must be one of {get_args(Approximation)}, got {approximate!r}")
    if not runs_on(gate):
        return reference(gate, up, approximate)
    gating.check_gate_and_up(gate, up)
    return GeGLU.apply(gate, up, approximate == "tanh")


@jit
def gelu_share(gate: tl.tensor, TANH: tl.constexpr) -> tl.tensor:  # noqa: N803
    """c(g), from which gelu(g) = g * c(g)."""
    if TANH:
        share = tl.sigmoid(1.5957691216057308 * (gate + 0.044715 * gate * gate * gate))  # 2 sqrt(2 / pi)
    else:
        share = 0.5 * (1.0 + tl.erf(gate * 0.7071067811865476))
    return share


@jit
def gelu_slope(gate: tl.tensor, share: tl.tensor, TANH: tl.constexpr) -> tl.tensor:  # noqa: N803
    """gelu'(g), `share` being c(g)."""
    if TANH:
        inner_slope = 1.5957691216057308 * (1.0 + 0.134145 * gate * gate)  # 3 * 0.044715
        slope = share + gate * share * (1.0 - share) * inner_slope
    else:
        slope = share + gate * tl.exp(-0.5 * gate * gate) * 0.3989422804014327  # 1 / sqrt(2 pi)
    return slope


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
    TANH: tl.constexpr,  # noqa: N803
) -> None:
    """One block of one row: y."""
    program = tl.program_id(0)
    row = (program // blocks_per_row).to(tl.int64)
    column = (program % blocks_per_row).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = column < columns
    gate = tl.load(gate_ptr + row * gate_stride + column, mask=inside, other=0.0).to(COMPUTE)
    up = tl.load(up_ptr + row * up_stride + column, mask=inside, other=0.0).to(COMPUTE)
    out = gate * gelu_share(gate, TANH) * up
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
    TANH: tl.constexpr,  # noqa: N803
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
    share = gelu_share(gate, TANH)
    activated = gate * share
    grad_gate = grad * up * gelu_slope(gate, share, TANH)
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


class GeGLU(torch.autograd.Function):  # type: ignore[misc]
    """Saves gate and up, overwrites them with their gradients where that is safe."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, tanh: bool) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.tanh = tanh
        ctx.overwrite = gating.overwritable(gate, up)
        return gating.forward(forward_kernel, gate, up, TANH=tanh)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        gate, up = ctx.saved_tensors
        over_gate, over_up = (False, False) if gating.graph_is_kept() else ctx.overwrite
        grad_gate, grad_up = gating.backward(
            backward_kernel,
            grad,
            gate,
            up,
            overwrite_gate=over_gate,
            overwrite_up=over_up,
            TANH=ctx.tanh,
        )
        return grad_gate, grad_up, None
