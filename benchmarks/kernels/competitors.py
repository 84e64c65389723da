"""How other libraries' functions are found. A missing one raises ImportError or AttributeError, which a row reports."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.kernels.case import Function, Inputs, Way
from tunemill.kernels.functions.lora_linear import Projection


def compiled(function: Function) -> Way:
    """`function` compiled for the one shape of the case, from a clean compiler."""

    def load(inputs: Inputs) -> Function:
        torch.compiler.reset()
        on_cpu = all(not tensor.is_cuda for tensor in inputs.arguments if isinstance(tensor, Tensor))
        # Without a GPU only the path is tested, and a C++ compiler would take minutes.
        found: Function = torch.compile(function, dynamic=False, backend="eager" if on_cpu else "inductor")
        return found

    return load


def liger(name: str) -> Way:
    """`apply` of an autograd function of `liger_kernel.ops`, called with the arguments of the case."""

    def load(_: Inputs) -> Function:
        found: Function = getattr(import_module("liger_kernel.ops"), name).apply
        return found

    return load


def host(projections: dict[str, Projection]) -> nn.Module:
    """A module with one PEFT LoRA layer per name, over the very tensors of the projections."""
    peft = import_module("peft")
    module = nn.Module()
    for name, projection in projections.items():
        linear = nn.Linear(1, 1, bias=False, device="meta")
        linear.out_features, linear.in_features = projection.weight.shape
        linear.weight = nn.Parameter(projection.weight, requires_grad=False)
        module.add_module(name, linear)
    first = next(iter(projections.values()))
    assert first.lora_a is not None
    rank = first.lora_a.shape[0]
    config = peft.LoraConfig(
        r=rank, lora_alpha=first.scaling * rank, lora_dropout=0.0, target_modules=list(projections)
    )
    adapted: nn.Module = peft.inject_adapter_in_model(config, module)
    for name, projection in projections.items():
        layer: Any = adapted.get_submodule(name)
        layer.lora_A["default"].weight = projection.lora_a
        layer.lora_B["default"].weight = projection.lora_b
    return adapted


def library(module: str, name: str) -> Function:
    """A function of a library that may be missing."""
    found: Function = getattr(import_module(module), name)
    return found
