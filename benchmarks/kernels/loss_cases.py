"""What the losses that project for themselves share: 8192 tokens, hidden sizes 2048 and 4096, two vocabularies.

FLOPs: 2 t h v forward, twice that backward. Bytes: forward reads hidden and weight; backward reads them again and
writes their gradients. The eager way is the reference: logits in bfloat16, then in float32.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from benchmarks.kernels.case import Case, Inputs, Setting, Way, Work, normal, parameter

SHAPES = [(8192, 2048, 151_936), (8192, 4096, 151_936), (8192, 2048, 128_256), (8192, 4096, 128_256)]


def loss_cases(
    setting: Setting, kernel: str, ways: Mapping[str, Way], shapes: list[tuple[int, int, int]]
) -> list[Case]:
    """t tokens, h hidden size, v entries of the vocabulary."""
    dtype = torch.bfloat16

    def one_case(t: int, h: int, v: int) -> Case:
        def make(gradients: bool) -> Inputs:
            hidden = normal(t, h, setting=setting, dtype=dtype, gradients=gradients)
            weight = parameter(v, h, setting=setting, dtype=dtype, gradients=gradients, scale=h**-0.5)
            labels = torch.randint(v, (t,), device=setting.device)
            return Inputs(arguments=(hidden, weight, labels), wanted=(hidden, weight))

        read, flops = (t * h + v * h) * dtype.itemsize, 2 * t * h * v
        return Case(
            kernel=kernel,
            shape=f"t={t} h={h} v={v}",
            dtype=dtype,
            make=make,
            work=Work(forward_bytes=read, both_bytes=3 * read, forward_flops=flops, both_flops=3 * flops),
            ways=ways,
        )

    return [one_case(*shape) for shape in ([(16, 8, 32)] if setting.tiny else shapes)]
