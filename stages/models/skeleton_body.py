"""A model without weights: its modules, names and shapes."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from tunemill.stages.models.heads import Head, head_of_config
from tunemill.stages.models.heads_body import auto_class


def skeleton_of(model_config: Any, head: Head | None = None) -> Any:
    """The model without weights, on the meta device; its head is this one, or the one that the config names."""
    found = head or head_of_config({"architectures": model_config.architectures})
    with torch.device("meta"):
        return auto_class(found).from_config(model_config)


def skeleton_of_folder(folder: Path) -> Any:
    """The same for a model folder."""
    return skeleton_of(AutoConfig.from_pretrained(folder))
