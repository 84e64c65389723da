"""The one place that imports Triton, so that every kernel file also imports where Triton is missing.

A kernel file does ``from tunemill.kernels.functions.triton_runtime import jit, runs_on, tl``, never ``import triton``,
and decorates its kernels with `jit`. Its public function asks `runs_on(x)`: where the answer is no, the plain
PyTorch reference runs.

``TRITON_INTERPRET=1`` makes Triton run kernels in Python on CPU tensors. Triton reads it when a kernel is
decorated, so a process is interpreted or it is not; `interpreted` says which.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    import triton
    from triton import language as tl

    available: bool
else:
    try:
        import triton
        from triton import language as tl

        available = True
    except ImportError:  # Triton exists for Linux only
        available = False
        triton = SimpleNamespace()
        tl = SimpleNamespace(constexpr=lambda value: value)

interpreted: bool = available and os.environ.get("TRITON_INTERPRET") == "1"

__all__ = [
    "accumulation_type",
    "available",
    "cdiv",
    "check_one_device",
    "device_of",
    "interpreted",
    "jit",
    "next_power_of_2",
    "runs_on",
    "tl",
    "triton",
]


def jit(function: Callable[..., Any]) -> Any:
    """`triton.jit`, or the bare function (never called) where Triton is missing."""
    return triton.jit(function) if available else function


def runs_on(tensor: Tensor) -> bool:
    """Whether a Triton kernel can run over `tensor`: a CUDA (or ROCm) tensor, or the interpreter."""
    return interpreted or (available and tensor.is_cuda)


def device_of(tensor: Tensor) -> AbstractContextManager[Any]:
    """Launch kernels inside this: Triton launches on the current device, not on that of its arguments."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def check_one_device(**tensors: Tensor | None) -> None:
    """Raise ValueError where tensors are on several devices: a kernel would read the wrong memory."""
    given = {name: tensor.device for name, tensor in tensors.items() if tensor is not None}
    devices = list(given.values())
    if any(device != devices[0] for device in devices):
        places = ", ".join(f"{name} on {device}" for name, device in given.items())
        raise ValueError(f"{places}: they must be on one device; move them with .to({str(devices[0])!r})")


def accumulation_type(*tensors: Tensor) -> Any:
    """The Triton type to compute in (a `tl.constexpr` argument): float64 for float64, else float32."""
    return tl.float64 if any(t.dtype == torch.float64 for t in tensors) else tl.float32


def cdiv(numerator: int, denominator: int) -> int:
    """Number of blocks of `denominator` that cover `numerator`."""
    return -(-numerator // denominator)


def next_power_of_2(number: int) -> int:
    """Smallest power of two that is at least `number`; Triton's block shapes are powers of two."""
    return 1 << max(number - 1, 0).bit_length()
