"""What the LoRA kernels share: random projections of rank 16 in bfloat16, and the work in them.

Per projection of t tokens, k inputs and n outputs with rank r: FLOPs are 2 t k n + 2 t r (k + n) forward; backward
2 t k n for dx (the base is frozen) and 4 t r (k + n) for the adapter and its share of dx. Bytes: x and W read, y
written; backward reads dy, W and x and writes dx. What lies between projections need not be moved and is not counted.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from benchmarks.kernels.case import Inputs, Setting, Work, normal, parameter
from tunemill.kernels.functions.lora_linear import Projection

RANK = 16
SCALING = 2.0
DTYPE = torch.bfloat16


def random_projection(setting: Setting, k: int, n: int, gradients: bool) -> Projection:
    """Outputs about as large as inputs; the adapter's share is as large as the base's, so that an error in it shows."""
    scale = 1 / math.sqrt(k)
    return Projection(
        weight=parameter(n, k, setting=setting, dtype=DTYPE, scale=scale),
        lora_a=parameter(RANK, k, setting=setting, dtype=DTYPE, gradients=gradients, scale=scale),
        lora_b=parameter(n, RANK, setting=setting, dtype=DTYPE, gradients=gradients, scale=1 / (2 * math.sqrt(RANK))),
        scaling=SCALING,
    )  # fmt: skip


def lora_inputs(setting: Setting, t: int, widths: list[tuple[int, int]], gradients: bool) -> Inputs:
    """x (1, t, k of the first projection) and one projection per (k, n)."""
    x = normal(1, t, widths[0][0], setting=setting, dtype=DTYPE, gradients=gradients)
    projections = [random_projection(setting, k, n, gradients) for k, n in widths]
    adapters: list[Tensor] = []
    for projection in projections:
        assert projection.lora_a is not None
        assert projection.lora_b is not None
        adapters += [projection.lora_a, projection.lora_b]
    return Inputs(arguments=(x, *projections), wanted=(x, *adapters))


def lora_work(t: int, widths: list[tuple[int, int]], *, read: int, written: int) -> Work:
    """Of projections of these widths that together read `read` and write `written` values per token."""
    base = sum(2 * t * k * n for k, n in widths)
    adapter = sum(2 * t * RANK * (k + n) for k, n in widths)
    weight_bytes = DTYPE.itemsize * sum(k * n for k, n in widths)
    token_bytes = DTYPE.itemsize * t
    forward = weight_bytes + token_bytes * (read + written)
    return Work(
        forward_bytes=forward,
        both_bytes=forward + weight_bytes + token_bytes * (2 * read + written),
        forward_flops=base + adapter,
        both_flops=2 * base + 3 * adapter,
    )
