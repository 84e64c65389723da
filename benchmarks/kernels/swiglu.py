"""SwiGLU at the intermediate sizes of 1B and 8B Llamas.

Bytes: forward reads gate and up and writes y, 3 t n; backward reads dy, gate and up and writes two gradients, 5 t n.
"""

from __future__ import annotations

import torch

from benchmarks.kernels.case import Case, Inputs, Setting, Work, normal, simple
from benchmarks.kernels.competitors import compiled, liger
from benchmarks.kernels.ways import COMPILED, EAGER, LIGER, OURS
from tunemill.kernels.functions import swiglu

SHAPES = [
    (16384, 14336, torch.bfloat16),
    (4096, 14336, torch.bfloat16),
    (16384, 8192, torch.bfloat16),
    (4096, 8192, torch.bfloat16),
    (4096, 8192, torch.float32),
]


def cases(setting: Setting) -> list[Case]:
    """t tokens, n intermediate size."""
    shapes = [(8, 16, torch.bfloat16)] if setting.tiny else SHAPES
    return [one_case(setting, *shape) for shape in shapes]


def one_case(setting: Setting, t: int, n: int, dtype: torch.dtype) -> Case:
    """One shape."""

    def make(gradients: bool) -> Inputs:
        gate, up = (normal(t, n, setting=setting, dtype=dtype, gradients=gradients) for _ in range(2))
        return Inputs(arguments=(gate, up), wanted=(gate, up))

    return Case(
        kernel="swiglu",
        shape=f"t={t} n={n}",
        dtype=dtype,
        make=make,
        work=gated_work(t * n * dtype.itemsize),
        ways={
            OURS: simple(swiglu.swiglu),
            EAGER: simple(swiglu.reference),
            LIGER: liger("LigerSiLUMulFunction"),
            COMPILED: compiled(swiglu.reference),
        },
    )


def gated_work(tensor_bytes: int) -> Work:
    """Of y = act(gate) * up."""
    return Work(forward_bytes=3 * tensor_bytes, both_bytes=8 * tensor_bytes)
