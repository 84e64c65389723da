"""A gated MLP with LoRA on its three projections, at the sizes of 1B and 8B Llamas.

Liger has no LoRA kernel: its row is PEFT's layers around Liger's activation, which is what Liger makes of the model.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import nn

from benchmarks.kernels.case import Case, Function, Inputs, Setting, simple
from benchmarks.kernels.competitors import compiled, host, library
from benchmarks.kernels.lora_cases import DTYPE, lora_inputs, lora_work
from benchmarks.kernels.ways import AXOLOTL, COMPILED, EAGER, LIGER, OURS, PEFT, UNSLOTH
from tunemill.kernels.functions import lora_mlp as kernel
from tunemill.kernels.functions import swiglu

SHAPES = [(16384, 4096, 14336), (4096, 4096, 14336), (16384, 2048, 8192), (4096, 2048, 8192)]
NAMES = ("gate_proj", "up_proj", "down_proj")


def cases(setting: Setting) -> list[Case]:
    """t tokens, k hidden size, n intermediate size."""
    return [one_case(setting, *shape) for shape in ([(8, 16, 24)] if setting.tiny else SHAPES)]


def one_case(setting: Setting, t: int, k: int, n: int) -> Case:
    """One MLP block."""
    widths = [(k, n), (k, n), (n, k)]
    return Case(
        kernel="lora_mlp",
        shape=f"t={t} k={k} n={n}",
        dtype=DTYPE,
        make=lambda gradients: lora_inputs(setting, t, widths, gradients),
        work=lora_work(t, widths, read=k, written=k),
        ways={
            OURS: simple(kernel.lora_mlp),
            EAGER: simple(kernel.reference),
            PEFT: lambda inputs: around(swiglu.reference, inputs),
            LIGER: around_liger,
            UNSLOTH: lambda inputs: fused_by("unsloth.kernels.fast_lora", inputs),
            AXOLOTL: lambda inputs: fused_by("axolotl.kernels.lora", inputs),
            COMPILED: compiled(kernel.reference),
        },
    )


def layers_of(inputs: Inputs) -> dict[str, nn.Module]:
    """PEFT's three layers over the same tensors."""
    return dict(host(dict(zip(NAMES, inputs.arguments[1:], strict=True))).named_children())


def around(gated: Function, inputs: Inputs) -> Function:
    """PEFT's layers around an activation."""
    layers = layers_of(inputs)
    gate, up, down = (layers[name] for name in NAMES)
    return lambda x, *_: down(gated(gate(x), up(x)))


def around_liger(inputs: Inputs) -> Function:
    """PEFT's layers around Liger's activation."""
    function: Any = library("liger_kernel.ops", "LigerSiLUMulFunction")
    return around(function.apply, inputs)


def fused_by(module: str, inputs: Inputs) -> Function:
    """Another library's autograd function over PEFT's layers."""
    apply = library(module, "apply_lora_mlp_swiglu")
    layers = SimpleNamespace(**layers_of(inputs), training=True)
    return lambda x, *_: apply(layers, x)
