"""The output projection of attention with LoRA, at the sizes of 1B and 8B Llamas."""

from __future__ import annotations

from types import SimpleNamespace

from benchmarks.kernels.case import Case, Function, Inputs, Setting, simple
from benchmarks.kernels.competitors import compiled, host, library
from benchmarks.kernels.lora_cases import DTYPE, lora_inputs, lora_work
from benchmarks.kernels.ways import AXOLOTL, COMPILED, EAGER, OURS, PEFT, UNSLOTH
from tunemill.kernels.functions import lora_o as kernel

SHAPES = [(16384, 4096), (4096, 4096), (16384, 2048), (4096, 2048)]


def cases(setting: Setting) -> list[Case]:
    """t tokens, k hidden size."""
    return [one_case(setting, *shape) for shape in ([(8, 16)] if setting.tiny else SHAPES)]


def one_case(setting: Setting, t: int, k: int) -> Case:
    """One layer."""
    widths = [(k, k)]
    return Case(
        kernel="lora_o",
        shape=f"t={t} k={k}",
        dtype=DTYPE,
        make=lambda gradients: lora_inputs(setting, t, widths, gradients),
        work=lora_work(t, widths, read=k, written=k),
        ways={
            OURS: simple(kernel.lora_o),
            EAGER: simple(kernel.reference),
            PEFT: peft_layer,
            UNSLOTH: lambda inputs: fused_by("unsloth.kernels.fast_lora", inputs),
            AXOLOTL: lambda inputs: fused_by("axolotl.kernels.lora", inputs),
            COMPILED: compiled(kernel.reference),
        },
    )


def peft_layer(inputs: Inputs) -> Function:
    """PEFT's own layer over the same tensors."""
    layer = host({"o_proj": inputs.arguments[1]}).get_submodule("o_proj")
    return lambda x, _: layer(x)


def fused_by(module: str, inputs: Inputs) -> Function:
    """Another library's autograd function over PEFT's layer."""
    apply = library(module, "apply_lora_o")
    children = dict(host({"o_proj": inputs.arguments[1]}).named_children())
    layers = SimpleNamespace(**children, training=True)
    return lambda x, _: apply(layers, x)
