"""Query, key and value projections with LoRA, at the sizes of 1B and 8B Llamas."""

from __future__ import annotations

from types import SimpleNamespace

from torch import nn

from benchmarks.kernels.case import Case, Function, Inputs, Setting, simple
from benchmarks.kernels.competitors import compiled, host, library
from benchmarks.kernels.lora_cases import DTYPE, lora_inputs, lora_work
from benchmarks.kernels.ways import AXOLOTL, COMPILED, EAGER, OURS, PEFT, UNSLOTH
from tunemill.kernels.functions import lora_qkv as kernel

# tokens, hidden size, width of key and value
SHAPES = [(16384, 4096, 1024), (4096, 4096, 1024), (16384, 2048, 512), (4096, 2048, 512)]
NAMES = ("q_proj", "k_proj", "v_proj")


def cases(setting: Setting) -> list[Case]:
    """t tokens, k hidden size, g width of key and value."""
    return [one_case(setting, *shape) for shape in ([(8, 16, 8)] if setting.tiny else SHAPES)]


def one_case(setting: Setting, t: int, k: int, g: int) -> Case:
    """One attention block."""
    widths = [(k, k), (k, g), (k, g)]
    return Case(
        kernel="lora_qkv",
        shape=f"t={t} k={k} g={g}",
        dtype=DTYPE,
        make=lambda gradients: lora_inputs(setting, t, widths, gradients),
        work=lora_work(t, widths, read=k, written=k + 2 * g),
        ways={
            OURS: simple(kernel.lora_qkv),
            EAGER: simple(kernel.reference),
            PEFT: peft_layers,
            UNSLOTH: lambda inputs: fused_by("unsloth.kernels.fast_lora", inputs),
            AXOLOTL: lambda inputs: fused_by("axolotl.kernels.lora", inputs),
            COMPILED: compiled(kernel.reference),
        },
    )


def layers_of(inputs: Inputs) -> dict[str, nn.Module]:
    """PEFT's three layers over the same tensors."""
    return dict(host(dict(zip(NAMES, inputs.arguments[1:], strict=True))).named_children())


def peft_layers(inputs: Inputs) -> Function:
    """PEFT's layers, one after the other."""
    layers = layers_of(inputs)
    return lambda x, *_: tuple(layers[name](x) for name in NAMES)


def fused_by(module: str, inputs: Inputs) -> Function:
    """Another library's autograd function over PEFT's layers."""
    apply = library(module, "apply_lora_qkv")
    layers = SimpleNamespace(**layers_of(inputs), training=True)
    return lambda x, *_: apply(layers, x)
