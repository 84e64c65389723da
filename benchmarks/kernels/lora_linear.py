"""One linear layer with LoRA, against PEFT's layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from benchmarks.kernels.case import Case, Function, Inputs, Setting, simple
from benchmarks.kernels.competitors import compiled, host
from benchmarks.kernels.lora_cases import DTYPE, lora_inputs, lora_work
from benchmarks.kernels.ways import COMPILED, EAGER, OURS, PEFT
from tunemill.kernels.functions import lora_linear as kernel
from tunemill.kernels.functions.lora_linear import Projection

SHAPES = [(16384, 4096, 4096), (4096, 4096, 4096), (16384, 2048, 8192), (4096, 2048, 8192)]


def cases(setting: Setting) -> list[Case]:
    """t tokens, k inputs, n outputs."""
    return [one_case(setting, *shape) for shape in ([(8, 16, 24)] if setting.tiny else SHAPES)]


def one_case(setting: Setting, t: int, k: int, n: int) -> Case:
    """One layer."""
    widths = [(k, n)]
    reference = over_projection(kernel.reference)
    return Case(
        kernel="lora_linear",
        shape=f"t={t} k={k} n={n}",
        dtype=DTYPE,
        make=lambda gradients: lora_inputs(setting, t, widths, gradients),
        work=lora_work(t, widths, read=k, written=n),
        ways={
            OURS: simple(over_projection(kernel.lora_linear)),
            EAGER: simple(reference),
            PEFT: peft_layer,
            COMPILED: compiled(reference),
        },
    )


def over_projection(function: Function) -> Function:
    """`function` called with the tensors of a projection."""

    def call(x: Tensor, p: Projection) -> Any:
        return function(x, p.weight, p.bias, p.lora_a, p.lora_b, p.scaling)

    return call


def peft_layer(inputs: Inputs) -> Function:
    """PEFT's own layer over the same tensors."""
    layer = host({"layer": inputs.arguments[1]}).get_submodule("layer")
    return lambda x, _: layer(x)
