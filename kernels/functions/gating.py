"""What the gated activations (`swiglu`, `geglu`) share on the host: row views, launching, overwriting.

A gated activation is y = act(gate) * up, elementwise. Its backward needs gate and up and nothing else needs
them afterwards, so it writes their gradients over them: an MLP block's backward then allocates nothing of
the intermediate size. `may_overwrite` and `graph_is_kept` say when that is safe.

Letters: m tokens (all leading dimensions), n intermediate size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tunemill.kernels.functions.triton_runtime import (
    accumulation_type,
    cdiv,
    check_one_device,
    device_of,
    next_power_of_2,
)

# 1024 two-byte elements over 4 warps are one 16-byte load per thread and tensor.
BLOCK = 1024


def check_gate_and_up(gate: Tensor, up: Tensor) -> None:
    """Raise ValueError unless gate and up can be multiplied element by element."""
    if gate.shape != up.shape:
        raise ValueError(f"gate and up must have one shape, got {tuple(gate.shape)} and {tuple(up.shape)}")
    if not (gate.is_floating_point() and up.is_floating_point()):
        raise ValueError(f"gate and up must be floating point, got {gate.dtype} and {up.dtype}")
    check_one_device(gate=gate, up=up)


def as_rows(x: Tensor) -> Tensor:
    """`x` as (m, n) with adjacent columns: a view where strides allow it, else a copy."""
    x_mn = x.reshape(math.prod(x.shape[:-1]), x.shape[-1]) if x.dim() else x.reshape(1, 1)
    return x_mn if x_mn.stride(-1) == 1 else x_mn.contiguous()


def may_overwrite(x: Tensor) -> bool:
    """Whether a backward may write the gradient of `x` over `x`, judged in the forward.

    Not over a leaf (a parameter, or data the caller holds) or a view of one, over a tensor that needs no
    gradient, over one whose own operation saved its result (sigmoid, softmax, ...), over a part of something
    larger than gate and up together, over one whose elements share memory, or under a compiler, which plans
    memory itself.
    """
    if torch.compiler.is_compiling() or not x.requires_grad or x.numel() == 0 or x.dim() == 0:
        return False
    owner = x if x._base is None else x._base
    if x.is_leaf or owner.is_leaf or owner.numel() > 2 * x.numel():
        return False
    if any(hasattr(type(t.grad_fn), "_saved_result") for t in (x, owner)):
        return False
    x_mn = x.reshape(-1, x.shape[-1])
    rows, columns = x_mn.shape
    is_view = bool(x_mn.data_ptr() == x.data_ptr())  # otherwise reshape had to copy
    return is_view and bool(x_mn.stride(-1) == 1) and bool(rows == 1 or x_mn.stride(0) >= columns)


def overwritable(gate: Tensor, up: Tensor) -> tuple[bool, bool]:
    """Which of gate and up the backward may overwrite; not both when they may share memory."""
    over_gate, over_up = may_overwrite(gate), may_overwrite(up)
    if (over_gate or over_up) and not are_disjoint(gate, up):
        return False, False
    return over_gate, over_up


def are_disjoint(gate: Tensor, up: Tensor) -> bool:
    """Whether two tensors of one shape are surely disjoint in memory, as the chunks of one tensor are."""
    if gate.untyped_storage().data_ptr() != up.untyped_storage().data_ptr():
        return True
    if gate.dtype != up.dtype or gate.stride() != up.stride():
        return False
    gate_mn = as_rows(gate)
    rows, columns = gate_mn.shape
    distance, stride = abs(gate.storage_offset() - up.storage_offset()), gate_mn.stride(0)
    if stride < columns or gate_mn.data_ptr() != gate.data_ptr():
        return False
    return bool(distance >= (rows - 1) * stride + columns or columns <= distance % stride <= stride - columns)


def graph_is_kept() -> bool:
    """Whether the backward that runs now may run again (``retain_graph``), and so must not overwrite.

    The same question torch's compiler asks before it reuses saved tensors as buffers.
    """
    return torch.compiler.is_compiling() or bool(torch._C._autograd._get_current_graph_task_keep_graph())


def launch(kernel: Any, tensors: Sequence[Tensor], **constants: Any) -> None:
    """Run an elementwise `kernel` over (m, n) tensors with adjacent columns.

    The kernel's parameters: one pointer per tensor, one row stride per tensor, columns, blocks per row, then
    the constants COMPUTE, BLOCK and `constants`.
    """
    rows, columns = tensors[0].shape
    if rows == 0 or columns == 0:
        return
    if all(t.is_contiguous() for t in tensors):
        rows, columns = 1, rows * columns
        strides = [columns] * len(tensors)
    else:
        strides = [t.stride(0) for t in tensors]
    block = min(BLOCK, next_power_of_2(columns))
    blocks_per_row = cdiv(columns, block)
    with device_of(tensors[0]):
        kernel[(rows * blocks_per_row,)](
            *tensors,
            *strides,
            columns,
            blocks_per_row,
            COMPUTE=accumulation_type(*tensors),
            BLOCK=block,
            num_warps=4,
            **constants,
        )


def forward(kernel: Any, gate: Tensor, up: Tensor, **constants: Any) -> Tensor:
    """act(gate) * up in the type the two promote to, contiguous."""
    out = torch.empty(gate.shape, dtype=torch.promote_types(gate.dtype, up.dtype), device=gate.device)
    launch(kernel, [as_rows(gate), as_rows(up), as_rows(out)], **constants)
    return out


def backward(
    kernel: Any,
    grad: Tensor,
    gate: Tensor,
    up: Tensor,
    *,
    overwrite_gate: bool,
    overwrite_up: bool,
    hidden: Tensor | None = None,
    **constants: Any,
) -> tuple[Tensor, Tensor]:
    """Gradients of gate and up; where `overwrite_*` says so, written over gate and up themselves.

    Into `hidden`, if given (it may be `grad` itself), goes act(gate) * up, which a LoRA MLP needs again for
    the gradient of its down projection.
    """
    if hidden is not None and not hidden.is_contiguous():
        raise ValueError(f"hidden must be contiguous, got strides {hidden.stride()}")
    grad_gate = (
        gate.detach() if overwrite_gate else torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
    )
    grad_up = up.detach() if overwrite_up else torch.empty(up.shape, dtype=up.dtype, device=up.device)
    sources = [as_rows(grad), as_rows(gate), as_rows(up)]
    targets = [as_rows(grad_gate), as_rows(grad_up), as_rows(grad_gate if hidden is None else hidden)]
    launch(kernel, sources + targets, WRITE_HIDDEN=hidden is not None, **constants)
    # Triton writes behind autograd's back: told of it, autograd refuses a stale use instead of computing with it.
    if overwrite_gate:
        torch.autograd.graph.increment_version(gate)
    if overwrite_up:
        torch.autograd.graph.increment_version(up)
    return grad_gate, grad_up
