"""NF4 to dense, with and without double quantization, against bitsandbytes. Results must be equal bit for bit.

Bytes: half a byte read and two bytes written per value, and the scales: one byte per 64 values with double
quantization and four more per 256 scales, four bytes per 64 values without. No gradient.

The codes and scales are random: how long it takes does not depend on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from benchmarks.kernels.case import Case, Function, Inputs, Setting, Work, simple
from benchmarks.kernels.competitors import compiled
from benchmarks.kernels.ways import BITSANDBYTES, COMPILED, EAGER, OURS
from tunemill.kernels.functions import nf4

BLOCK, NESTED_BLOCK = 64, 256
SHAPES = [(14336, 4096, True), (8192, 2048, True), (14336, 4096, False)]


@dataclass(kw_only=True)
class State:
    """A `QuantState` that does not need bitsandbytes."""

    absmax: Tensor
    shape: tuple[int, ...]
    blocksize: int
    code: Tensor
    dtype: torch.dtype = torch.bfloat16
    quant_type: str = "nf4"
    offset: Tensor | None = None
    state2: Any = None


def cases(setting: Setting) -> list[Case]:
    """n outputs, k inputs."""
    shapes = [(8, 128, True), (8, 128, False)] if setting.tiny else SHAPES
    return [one_case(setting, *shape) for shape in shapes]


def one_case(setting: Setting, n: int, k: int, nested: bool) -> Case:
    """One weight."""
    blocks = n * k // BLOCK

    def make(_: bool) -> Inputs:
        packed = torch.randint(256, (n * k // 2, 1), dtype=torch.uint8, device=setting.device)
        return Inputs(arguments=(packed, random_state(setting, n, k, nested)))

    scale_bytes = blocks + 4 * blocks // NESTED_BLOCK if nested else 4 * blocks
    return Case(
        kernel="nf4",
        shape=f"n={n} k={k}{' double' if nested else ''}",
        dtype=torch.bfloat16,
        make=make,
        work=Work(forward_bytes=n * k // 2 + 2 * n * k + scale_bytes, both_bytes=None),
        ways={
            OURS: simple(nf4.dequantize_nf4),
            EAGER: simple(nf4.reference),
            BITSANDBYTES: from_bitsandbytes,
            COMPILED: compiled(nf4.reference),
        },
        exact=True,
    )


def random_state(setting: Setting, n: int, k: int, nested: bool) -> State:
    """Scales of a weight, as bytes with scales of their own if `nested`."""
    blocks = n * k // BLOCK
    code = torch.tensor(nf4.NF4_VALUES, device=setting.device)
    if not nested:
        absmax = torch.rand(blocks, device=setting.device)
        return State(absmax=absmax, shape=(n, k), blocksize=BLOCK, code=code)
    outer = State(
        absmax=torch.rand(-(-blocks // NESTED_BLOCK), device=setting.device),
        shape=(blocks,),
        blocksize=NESTED_BLOCK,
        code=torch.linspace(-1, 1, 256, device=setting.device),
        dtype=torch.float32,
    )
    return State(
        absmax=torch.randint(256, (blocks,), dtype=torch.uint8, device=setting.device),
        shape=(n, k),
        blocksize=BLOCK,
        code=code,
        offset=torch.tensor(0.05, device=setting.device),
        state2=outer,
    )


def from_bitsandbytes(inputs: Inputs) -> Function:
    """`dequantize_4bit` over the same codes and scales."""
    functional = import_module("bitsandbytes.functional")
    packed, state = inputs.arguments
    outer = state.state2
    inner = None
    if outer is not None:
        inner = functional.QuantState(
            absmax=outer.absmax, code=outer.code, blocksize=outer.blocksize, dtype=torch.float32
        )
    made = functional.QuantState(
        absmax=state.absmax,
        shape=torch.Size(state.shape),
        code=state.code,
        blocksize=state.blocksize,
        quant_type="nf4",
        dtype=state.dtype,
        offset=state.offset,
        state2=inner,
    )
    return lambda *_: functional.dequantize_4bit(packed, made)
