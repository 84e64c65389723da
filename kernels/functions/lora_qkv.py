"""Query, key and value projections with LoRA over one input, as one autograd function.

    q = x Wqᵀ + bq + sq (dropout(x) Aqᵀ) Bqᵀ, likewise k and v
    dx = Σ_p (Gp Wp + sp (Gp Bp) Ap), summed in one buffer; per projection as in `lora_linear`

Against three separate layers: x is saved once, and dx takes one buffer in place of three and two additions. A
projection without an adapter (`lora_a` None) takes part as a frozen layer.

shapes: t tokens (all leading dimensions of x), k inputs, n outputs of each projection (they may differ, as in
grouped-query attention), r rank. dtypes and sources: see `tunemill.kernels.functions.lora_linear`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

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


class LoraQkv(torch.autograd.Function):  # type: ignore[misc]
    """`forward(x_tk, constants of q, k, v, *factors of q, k, v)`."""

    @staticmethod
    def forward(ctx: Any, x_tk: Tensor, constants: tuple[Constants, ...], *tensors: Tensor | None) -> Any:
        """One y [t, n] per projection."""
        outputs: list[Tensor] = []
        saved: list[Tensor | None] = []
        for index, constant in enumerate(constants):
            factors = Factors(*tensors[index * FACTORS : (index + 1) * FACTORS])
            y_tn, kept = project(x_tk, constant, factors)
            outputs.append(y_tn)
            saved.extend(kept)
        ctx.save_for_backward(x_tk, *tensors, *saved)
        ctx.constants = constants
        ctx.set_materialize_grads(False)
        return tuple(outputs)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *grads_tn: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of x_tk and of each factor; a projection whose output nobody used gives none."""
        x_tk, *rest = ctx.saved_tensors
        count = len(ctx.constants) * FACTORS
        tensors, saved = rest[:count], rest[count:]
        needs = ctx.needs_input_grad
        grad_x_tk: Tensor | None = None
        grads: list[Tensor | None] = []
        for index, (constant, grad_tn) in enumerate(zip(ctx.constants, grads_tn, strict=True)):
            if grad_tn is None:
                grads.extend([None] * FACTORS)
                continue
            first = index * FACTORS
            grad_x_tk, of_factors = project_backward(
                grad_tn.contiguous(),
                x_tk,
                constant,
                Factors(*tensors[first : first + FACTORS]),
                Saved(*saved[index * SAVED : (index + 1) * SAVED]),
                needs[2 + first : 2 + first + FACTORS],
                grad_x_tk,
                needs[0],
            )
            grads.extend(of_factors)
        return (grad_x_tk, None, *grads)


def fused(x: Tensor, query: Projection, key: Projection, value: Projection) -> tuple[Tensor, Tensor, Tensor]:
    """The autograd function on any device."""
    x_tk = x.to(compute_dtype(x)).reshape(-1, x.shape[-1])
    constants, factors = zip(*(prepare(x_tk, p) for p in (query, key, value)), strict=True)
    flat = [tensor for of_one in factors for tensor in of_one]
    query_tn, key_tn, value_tn = LoraQkv.apply(x_tk, constants, *flat)
    lead = x.shape[:-1]
    return query_tn.view(*lead, -1), key_tn.view(*lead, -1), value_tn.view(*lead, -1)


def reference(
    x: Tensor, query: Projection, key: Projection, value: Projection
) -> tuple[Tensor, Tensor, Tensor]:
    """Plain PyTorch `lora_qkv`; draws the same dropout masks from the same generator state."""
    return plain(x, query), plain(x, key), plain(x, value)


def lora_qkv(
    x: Tensor, query: Projection, key: Projection, value: Projection
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v, each [..., n], of x [..., k].

    Raises:
        ValueError: where shapes, dtypes or settings do not fit together.
    """
    return (fused if runs_fused(x) else reference)(x, query, key, value)
