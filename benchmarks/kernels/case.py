"""What a kernel's benchmark file declares: cases of one shape and dtype, the work in them, and who competes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

DTYPE_NAMES = {
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.float32: "fp32",
    torch.bool: "bool",
}
# Largest norm of a difference over the norm of the reference. Both sides round to the dtype several times.
TOLERANCES = {"bf16": 2e-2, "fp16": 5e-3, "fp32": 1e-4, "bool": 0.0}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where the run takes place. `tiny` shapes show that everything runs, not how fast."""

    device: str
    tiny: bool


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Arguments of the function, and the leaves among them whose gradients are taken (none: forward only)."""

    arguments: tuple[Any, ...]
    wanted: tuple[Tensor, ...] = ()


Function = Callable[..., Any]
Way = Callable[[Inputs], Function]
"""Imports or builds one competitor for these inputs; the function is then called with their arguments."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What no implementation can avoid: bytes moved between memory and processor, and floating-point operations.

    `both` is forward and backward together, None where there is no backward; FLOPs are counted in matrix
    products only.
    """

    forward_bytes: int
    both_bytes: int | None
    forward_flops: int = 0
    both_flops: int = 0


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row of the table: `make(gradients)` gives the same values each time."""

    kernel: str
    shape: str
    dtype: torch.dtype
    make: Callable[[bool], Inputs]
    work: Work
    ways: Mapping[str, Way]
    exact: bool = False
    """Whether the result must equal the reference bit for bit."""

    @property
    def tolerance(self) -> float:
        """Largest relative difference from the reference."""
        return 0.0 if self.exact else TOLERANCES[DTYPE_NAMES[self.dtype]]


def normal(
    *shape: int, setting: Setting, dtype: torch.dtype, gradients: bool = False, scale: float = 1.0
) -> Tensor:
    """Normally distributed activations; seeded by whoever calls `Case.make`."""
    values = torch.randn(shape, device=setting.device, dtype=dtype).mul_(scale)
    return values.requires_grad_(gradients)


def parameter(
    *shape: int, setting: Setting, dtype: torch.dtype, gradients: bool = False, scale: float = 1.0
) -> nn.Parameter:
    """Normally distributed weights: leaves that a backward may not write over."""
    values = normal(*shape, setting=setting, dtype=dtype, scale=scale)
    return nn.Parameter(values, requires_grad=gradients)


def simple(function: Function) -> Way:
    """A competitor that needs no building."""
    return lambda _: function
