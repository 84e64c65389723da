"""Loading a model that is scored."""

from typing import Any

import torch

from tunemill.stages.artifacts import Adapter, Model
from tunemill.stages.models.loading_body import is_quantized, load_causal_lm
from tunemill.stages.models.rounded_body import with_adapter


def load_scored(model: Model, adapter: Adapter | None) -> Any:
    """The model, with its adapter if there is one, in the type of its weights and on its device, in evaluation mode."""
    loaded = load_causal_lm(model.path, dtype="auto")
    if adapter is not None:
        loaded = with_adapter(loaded, adapter.path)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # What is quantized lies on its device already, and some of it cannot be moved.
    return (loaded if is_quantized(model.path) else loaded.to(device)).eval()
