"""RMSNorm at hidden sizes of 1B and 8B models, alone and with the residual addition in front of it.

Bytes: forward reads x and writes y, 2 t n; backward reads dy and x and writes dx, 3 t n. With a residual forward also
reads it and writes h, 4 t n in all; backward also reads dh, 4 t n. The weight is small beside them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.kernels.case import Case, Inputs, Setting, Work, normal, parameter, simple
from benchmarks.kernels.competitors import compiled, library
from benchmarks.kernels.ways import COMPILED, EAGER, LIGER, OURS
from tunemill.kernels.functions import rms_norm

EPS = 1e-5
SHAPES = [
    (16384, 4096, torch.bfloat16),
    (4096, 4096, torch.bfloat16),
    (16384, 2048, torch.bfloat16),
    (4096, 2048, torch.bfloat16),
    (4096, 4096, torch.float32),
]
RESIDUAL_SHAPES = [(16384, 4096, torch.bfloat16), (4096, 2048, torch.bfloat16)]


def cases(setting: Setting) -> list[Case]:
    """t tokens, n hidden size."""
    tiny = [(8, 16, torch.bfloat16)]
    alone = [one_case(setting, *shape) for shape in (tiny if setting.tiny else SHAPES)]
    return alone + [with_residual(setting, *shape) for shape in (tiny if setting.tiny else RESIDUAL_SHAPES)]


def one_case(setting: Setting, t: int, n: int, dtype: torch.dtype) -> Case:
    """x alone."""

    def make(gradients: bool) -> Inputs:
        x = normal(t, n, setting=setting, dtype=dtype, gradients=gradients)
        weight = parameter(n, setting=setting, dtype=dtype, gradients=gradients)
        return Inputs(arguments=(x, weight), wanted=(x, weight))

    def reference(x: Tensor, weight: Tensor) -> Any:
        return rms_norm.reference(x, weight, EPS)

    tensor_bytes = t * n * dtype.itemsize
    return Case(
        kernel="rms_norm",
        shape=f"t={t} n={n}",
        dtype=dtype,
        make=make,
        work=Work(forward_bytes=2 * tensor_bytes, both_bytes=5 * tensor_bytes),
        ways={
            OURS: simple(lambda x, weight: rms_norm.rms_norm(x, weight, EPS)),
            EAGER: simple(reference),
            LIGER: liger_alone,
            COMPILED: compiled(reference),
        },
    )


def with_residual(setting: Setting, t: int, n: int, dtype: torch.dtype) -> Case:
    """x + residual, of which the sum goes on."""

    def make(gradients: bool) -> Inputs:
        x, residual = (normal(t, n, setting=setting, dtype=dtype, gradients=gradients) for _ in range(2))
        weight = parameter(n, setting=setting, dtype=dtype, gradients=gradients)
        return Inputs(arguments=(x, residual, weight), wanted=(x, residual, weight))

    def reference(x: Tensor, residual: Tensor, weight: Tensor) -> Any:
        return rms_norm.reference(x, weight, EPS, residual=residual)

    tensor_bytes = t * n * dtype.itemsize
    return Case(
        kernel="rms_norm",
        shape=f"residual t={t} n={n}",
        dtype=dtype,
        make=make,
        work=Work(forward_bytes=4 * tensor_bytes, both_bytes=8 * tensor_bytes),
        ways={
            OURS: simple(lambda x, residual, weight: rms_norm.rms_norm(x, weight, EPS, residual=residual)),
            EAGER: simple(reference),
            LIGER: liger_with_residual,
            COMPILED: compiled(reference),
        },
    )


def liger_alone(_: Inputs) -> Any:
    """As Liger's Llama module calls it: in place over dy."""
    apply = library("liger_kernel.ops", "LigerRMSNormFunction").apply  # type: ignore[attr-defined]
    return lambda x, weight: apply(x, weight, EPS, 0.0, "llama", True)


def liger_with_residual(_: Inputs) -> Any:
    """As Liger's module calls it: in place over dy."""
    apply = library("liger_kernel.ops", "LigerFusedAddRMSNormFunction").apply  # type: ignore[attr-defined]
    return lambda x, residual, weight: apply(x, residual, weight, EPS, 0.0, "llama", True)
