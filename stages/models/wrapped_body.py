"""A model out of what others have put around it."""

from typing import Any


def plain_model(model: Any) -> Any:
    """The model itself, out of the adapter around it."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def uncompiled(model: Any) -> Any:
    """The model itself, out of what `torch.compile` makes of it."""
    return getattr(model, "_orig_mod", model)
