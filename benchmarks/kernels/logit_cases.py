"""What entropy and selective_log_softmax share: logits of 4096 and 16384 tokens over Llama's and Qwen's vocabularies.

Bytes: forward reads the logits, backward reads them again and writes their gradient; results are t numbers.
"""

from __future__ import annotations

import torch

from benchmarks.kernels.case import Case, Function, Inputs, Setting, Work, normal, simple
from benchmarks.kernels.competitors import compiled
from benchmarks.kernels.ways import COMPILED, EAGER, OURS

SHAPES = [(4096, 128_256), (4096, 151_936), (16384, 128_256)]


def logit_cases(
    setting: Setting, kernel: str, function: Function, reference: Function, *, indexed: bool
) -> list[Case]:
    """t tokens, v entries; `indexed` kernels take one entry per token beside the logits."""
    dtype = torch.bfloat16

    def one_case(t: int, v: int) -> Case:
        def make(gradients: bool) -> Inputs:
            logits = normal(t, v, setting=setting, dtype=dtype, gradients=gradients)
            index = (torch.randint(v, (t,), device=setting.device),) if indexed else ()
            return Inputs(arguments=(logits, *index), wanted=(logits,))

        logit_bytes = t * v * dtype.itemsize
        return Case(
            kernel=kernel,
            shape=f"t={t} v={v}",
            dtype=dtype,
            make=make,
            work=Work(forward_bytes=logit_bytes, both_bytes=3 * logit_bytes),
            ways={OURS: simple(function), EAGER: simple(reference), COMPILED: compiled(reference)},
        )

    return [one_case(*shape) for shape in ([(8, 32)] if setting.tiny else SHAPES)]
