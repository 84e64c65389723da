"""Models whose weights are zero in two of four places, and the recipe that keeps them so."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from support.tiny_model import make_model


def make_pruned(folder: Path, **sizes: Any) -> Path:
    """A tiny model, pruned 2:4 in all linear modules of its layers."""
    make_model(folder, **sizes)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    for name, tensor in tensors.items():
        if "_proj" in name:
            fours = tensor.view(-1, 4)
            smallest = fours.abs().topk(2, dim=1, largest=False).indices
            fours.scatter_(1, smallest, torch.zeros_like(fours))
    save_file(tensors, file, {"format": "pt"})
    return folder


def recipe(*targets: str) -> dict[str, Any]:
    """What Axolotl's page writes."""
    modifier = {"targets": list(targets), "start": 0}
    return {"finetuning_stage": {"finetuning_modifiers": {"ConstantPruningModifier": modifier}}}
