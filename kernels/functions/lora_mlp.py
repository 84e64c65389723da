"""A gated MLP with LoRA on its three projections, as one autograd function.

    h = act(x Wgᵀ + ...) ∘ (x Wuᵀ + ...),    y = h Wdᵀ + bd + sd (dropout(h) Adᵀ) Bdᵀ

each projection as in `tunemill.kernels.functions.lora_linear`; act is silu (SwiGLU), gelu or its tanh form (GeGLU).

Saved for backward: x, gate and up (t x n each) and the t x r products. h is not: the activation's backward
kernel reads dh, gate and up once and writes h over dh, d_gate over gate and d_up over up, so backward allocates
one t x n buffer, and dx is summed in one. A backward that may run again (``retain_graph``) or is compiled leaves gate
and up alone.

shapes: t tokens (all leading dimensions of x), k hidden size, n intermediate size, r rank; gate and up are [n, k],
down is [k, n]. dtypes: float64, float32, bfloat16, float16.

sources: LoRA https://arxiv.org/abs/2106.09685, GLU variants https://arxiv.org/abs/2002.05202; the others under
`tunemill.kernels.functions.lora_linear`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tunemill.kernels.functions import gating, geglu, swiglu
from tunemill.kernels.functions.lora_linear import (
    FACTORS,
    SAVED,
    Constants,
    Factors,
    Projection,
    Saved,
    compute_dtype,
    plain,
    prepare,
    project,
    project_backward,
    runs_fused,
)
from tunemill.kernels.functions.triton_runtime import runs_on

Activation = Literal["silu", "gelu", "gelu_tanh"]


@dataclass(frozen=True, kw_only=True)
class Gated:
    """A gated activation: its reference, its Triton kernels and their constants."""

    reference: Callable[[Tensor, Tensor], Tensor]
    act: Callable[[Tensor], Tensor]
    act_backward: Callable[[Tensor, Tensor], Tensor]
    """(dL/d act(g), g) to dL/dg."""
    forward_kernel: Any
    backward_kernel: Any
    constants: dict[str, bool]


def gelu_gated(approximate: geglu.Approximation) -> Gated:
    """GeGLU in one of its two forms."""
    return Gated(
        reference=lambda gate, up: geglu.reference(gate, up, approximate),
        act=lambda gate: torch.nn.functional.gelu(gate, approximate=approximate),
        act_backward=lambda grad, gate: torch.ops.aten.gelu_backward(grad, gate, approximate=approximate),
        forward_kernel=geglu.forward_kernel,
        backward_kernel=geglu.backward_kernel,
        constants={"TANH": approximate == "tanh"},
    )


GATED: dict[str, Gated] = {
    "silu": Gated(
        reference=swiglu.reference,
        act=torch.nn.functional.silu,
        act_backward=torch.ops.aten.silu_backward,
        forward_kernel=swiglu.forward_kernel,
        backward_kernel=swiglu.backward_kernel,
        constants={},
    ),
    "gelu": gelu_gated("none"),
    "gelu_tanh": gelu_gated("tanh"),
}


def activate(name: str, gate_tn: Tensor, up_tn: Tensor) -> Tensor:
    """h = act(gate) ∘ up, by the kernel where it runs."""
    gated = GATED[name]
    if not runs_on(gate_tn):
        return gated.reference(gate_tn, up_tn)
    return gating.forward(gated.forward_kernel, gate_tn, up_tn, **gated.constants)


def activate_backward(
    name: str, grad_hidden_tn: Tensor, gate_tn: Tensor, up_tn: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """h, d_gate and d_up; the kernel writes them over its three arguments where no graph is kept."""
    gated = GATED[name]
    if runs_on(gate_tn):
        overwrite = not gating.graph_is_kept()
        grad_gate_tn, grad_up_tn = gating.backward(
            gated.backward_kernel,
            grad_hidden_tn,
            gate_tn,
            up_tn,
            overwrite_gate=overwrite,
            overwrite_up=overwrite,
            hidden=grad_hidden_tn,
            **gated.constants,
        )
        return grad_hidden_tn, grad_gate_tn, grad_up_tn
    activated_tn = gated.act(gate_tn)
    grad_gate_tn = gated.act_backward(grad_hidden_tn * up_tn, gate_tn)
    return activated_tn * up_tn, grad_gate_tn, grad_hidden_tn * activated_tn


class LoraMlp(torch.autograd.Function):  # type: ignore[misc]
    """`forward(x_tk, activation, constants of gate, up, down, *factors of gate, up, down)`."""

    @staticmethod
    def forward(
        ctx: Any, x_tk: Tensor, activation: str, constants: tuple[Constants, ...], *tensors: Tensor | None
    ) -> Tensor:
        """y [t, k]."""
        gate, up, down = split_factors(tensors)
        gate_tn, gate_saved = project(x_tk, constants[0], gate)
        up_tn, up_saved = project(x_tk, constants[1], up)
        y_tk, down_saved = project(activate(activation, gate_tn, up_tn), constants[2], down)
        ctx.save_for_backward(x_tk, gate_tn, up_tn, *tensors, *gate_saved, *up_saved, *down_saved)
        ctx.activation, ctx.constants = activation, constants
        return y_tk

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_tk: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x_tk and of each factor that asks for one."""
        x_tk, gate_tn, up_tn, *rest = ctx.saved_tensors
        gate, up, down = split_factors(rest[: 3 * FACTORS])
        kept = rest[3 * FACTORS :]
        saved = [Saved(*kept[index * SAVED : (index + 1) * SAVED]) for index in range(3)]
        needs_x, needs = ctx.needs_input_grad[0], ctx.needs_input_grad[3:]
        needs_gate, needs_up, needs_down = (needs[i * FACTORS : (i + 1) * FACTORS] for i in range(3))
        of_gate, of_up, of_down = ctx.constants
        grad_tk = grad_tk.contiguous()
        # h is rebuilt by the activation's backward, which needs dh: so dh first, the factors of down after it.
        no_needs = (False,) * FACTORS
        grad_hidden_tn, _ = project_backward(
            grad_tk, gate_tn, of_down, down, saved[2], no_needs, None, needs_x=True
        )
        if grad_hidden_tn is None:
            raise RuntimeError("project_backward(needs_x=True) gave no gradient")
        hidden_tn, grad_gate_tn, grad_up_tn = activate_backward(
            ctx.activation, grad_hidden_tn, gate_tn, up_tn
        )
        _, down_grads = project_backward(
            grad_tk, hidden_tn, of_down, down, saved[2], needs_down, None, needs_x=False
        )
        grad_x_tk, gate_grads = project_backward(
            grad_gate_tn, x_tk, of_gate, gate, saved[0], needs_gate, None, needs_x
        )
        grad_x_tk, up_grads = project_backward(
            grad_up_tn, x_tk, of_up, up, saved[1], needs_up, grad_x_tk, needs_x
        )
        return (grad_x_tk, None, None, *gate_grads, *up_grads, *down_grads)


def split_factors(tensors: Any) -> tuple[Factors, Factors, Factors]:
    """The factors of gate, up and down out of one flat sequence."""
    gate, up, down = (Factors(*tensors[i * FACTORS : (i + 1) * FACTORS]) for i in range(3))
    return gate, up, down


def intermediate(x_tk: Tensor, gate: Projection, up: Projection) -> Tensor:
    """An empty stand-in [t, n] for h, from which down's dropout mask and checks take shape, dtype and device."""
    known = [p for p in (gate, up) if p.lora_b is not None or p.dequantize is None]
    if not known:
        raise ValueError("lora_mlp: with quantized weights, gate or up needs an adapter")
    rows = known[0].lora_b.shape[0] if known[0].lora_b is not None else known[0].weight.shape[0]
    return x_tk.new_empty(1).expand(x_tk.shape[0], int(rows))


def fused(
    x: Tensor, gate: Projection, up: Projection, down: Projection, activation: Activation = "silu"
) -> Tensor:
    """The autograd function on any device."""
    x_tk = x.to(compute_dtype(x)).reshape(-1, x.shape[-1])
    hidden_tn = intermediate(x_tk, gate, up)
    inputs = ((x_tk, gate), (x_tk, up), (hidden_tn, down))
    constants, factors = zip(*(prepare(tensor, p) for tensor, p in inputs), strict=True)
    flat = [tensor for of_one in factors for tensor in of_one]
    y_tk: Tensor = LoraMlp.apply(x_tk, activation, constants, *flat)
    return y_tk.view(*x.shape[:-1], y_tk.shape[-1])


def check_activation(activation: str) -> None:
    """Raise ValueError for an unknown activation."""
    if activation not in GATED:
        raise ValueError(f"activation must be one of {tuple(GATED)}, got {activation!r}")


def reference(
    x: Tensor, gate: Projection, up: Projection, down: Projection, activation: Activation = "silu"
) -> Tensor:
    """Plain PyTorch `lora_mlp`; draws the same dropout masks from the same generator state."""
    check_activation(activation)
    return plain(GATED[activation].reference(plain(x, gate), plain(x, up)), down)


def lora_mlp(
    x: Tensor, gate: Projection, up: Projection, down: Projection, activation: Activation = "silu"
) -> Tensor:
    """y [..., k] of x [..., k] through a gated MLP whose projections may carry adapters.

    Raises:
        ValueError: for an unknown activation, or shapes, dtypes or settings that do not fit together.
    """
    check_activation(activation)
    return (fused if runs_fused(x) else reference)(x, gate, up, down, activation)
