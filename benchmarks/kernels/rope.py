"""Rotary embedding of the q and k heads of 1B and 8B Llamas, laid out as attention gets them: (b, s, h, d) transposed.

Bytes: forward and backward each read and write q and k once, and read cos and sin.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.kernels.case import Case, Function, Inputs, Setting, Work, normal, simple
from benchmarks.kernels.competitors import compiled, liger
from benchmarks.kernels.ways import COMPILED, EAGER, LIGER, OURS
from tunemill.kernels.functions import rope

# tokens, query heads, key heads, head size
SHAPES = [(16384, 32, 8, 128), (4096, 32, 8, 128), (16384, 32, 8, 64), (4096, 32, 8, 64)]


def cases(setting: Setting) -> list[Case]:
    """One row of s positions."""
    return [one_case(setting, *shape) for shape in ([(8, 4, 2, 16)] if setting.tiny else SHAPES)]


def one_case(setting: Setting, positions: int, heads: int, key_heads: int, size: int) -> Case:
    """One shape. Ours may write over q and k, as in a model and as Liger always does."""
    dtype = torch.bfloat16

    def make(gradients: bool) -> Inputs:
        q, k = (
            normal(1, positions, count, size, setting=setting, dtype=dtype, gradients=gradients)
            for count in (heads, key_heads)
        )
        angles = torch.randn(1, positions, size, device=setting.device)
        cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
        return Inputs(arguments=(q, k, cos, sin), wanted=(q, k))

    moved = positions * size * (2 * (heads + key_heads) + 2) * dtype.itemsize
    return Case(
        kernel="rope",
        shape=f"s={positions} h={heads} g={key_heads} d={size}",
        dtype=dtype,
        make=make,
        work=Work(forward_bytes=moved, both_bytes=2 * moved),
        ways={
            OURS: simple(of_heads(partial(rope.rope, in_place=True))),
            EAGER: simple(of_heads(rope.reference)),
            LIGER: lambda inputs: of_heads(liger("LigerRopeFunction")(inputs)),
            COMPILED: compiled(of_heads(rope.reference)),
        },
    )


def of_heads(rotate: Function) -> Function:
    """`rotate` for q and k as the projections make them, (b, s, h, d)."""

    def call(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> Any:
        return rotate(q.transpose(1, 2), k.transpose(1, 2), cos, sin)

    return call
