"""Llama 4's experts as linear modules in a loaded model, and back: the same weights, in other places.

The modules are those that transformers itself puts in place of the experts when a model is stored in 4 or 8 bits.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers.models.llama4.modeling_llama4 import Llama4TextExperts
from transformers.quantizers.base import SequentialLlama4TextExperts

from tunemill.stages.models.adapter_folder import ADAPTER_WEIGHTS
from tunemill.stages.models.linearized import PARTS, expert_module


def joined_experts(model: Any) -> list[str]:
    """The names of modules that hold the experts of a layer in two parameters."""
    return [name for name, module in model.named_modules() if isinstance(module, Llama4TextExperts)]


def linear_experts(model: Any) -> Iterator[tuple[Any, str, Any]]:
    """Of each linear module of an expert: the expert, its name there, and the module."""
    for module in model.modules():
        if isinstance(module, SequentialLlama4TextExperts):
            for expert in module:
                for part in PARTS:
                    yield expert, part, getattr(expert, part)


def split_experts(model: Any) -> int:
    """Put linear modules in place of the parameters. Returns in how many layers."""
    names = joined_experts(model)
    for name in names:
        old = model.get_submodule(name)
        with torch.device("meta"):
            new = SequentialLlama4TextExperts(model.config.get_text_config())
        for number, expert in enumerate(new):
            gate, up = old.gate_up_proj[number].chunk(2, dim=-1)
            for part, weight in zip(PARTS, (gate, up, old.down_proj[number]), strict=True):
                held = weight.detach().T.contiguous()
                module = getattr(expert, part)
                module.weight = torch.nn.Parameter(held, requires_grad=old.down_proj.requires_grad)
        model.set_submodule(name, new.train(old.training))
    return len(names)


def join_experts(model: Any) -> None:
    """Put the two parameters in place of linear modules."""
    for name, old in list(model.named_modules()):
        if not isinstance(old, SequentialLlama4TextExperts):
            continue
        with torch.device("meta"):
            new = Llama4TextExperts(model.config.get_text_config())
        gate, up, down = (
            torch.stack([getattr(expert, part).weight.detach().T for expert in old]) for part in PARTS
        )
        new.gate_up_proj = torch.nn.Parameter(torch.cat((gate, up), dim=-1), requires_grad=False)
        new.down_proj = torch.nn.Parameter(down.contiguous(), requires_grad=False)
        model.set_submodule(name, new)


def fit_experts(model: Any, adapter: Path) -> None:
    """Give the model linear experts where an adapter was trained on such."""
    with safe_open(adapter / ADAPTER_WEIGHTS, framework="pt") as reader:
        modules = {name.partition(".lora_")[0] for name in reader.keys()}  # noqa: SIM118
    if any(expert_module(name) for name in modules):
        split_experts(model)
