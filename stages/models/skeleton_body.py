"""A model without weights: its modules, names and shapes."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM


def skeleton_of(model_config: Any) -> Any:
    """The model without weights, on the meta device."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(model_config)


def skeleton_of_folder(folder: Path) -> Any:
    """The same for a model folder."""
    return skeleton_of(AutoConfig.from_pretrained(folder))
