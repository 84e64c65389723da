"""A model out of what others have put around it."""

from typing import Any

from torch.nn.parallel import DistributedDataParallel


def single(model: Any) -> Any:
    """The model with its adapter, out of what exchanges its gradients with other processes."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def plain_model(model: Any) -> Any:
    """The model itself, out of the adapter around it, and out of what exchanges its gradients with other processes."""
    model = single(model)
    return model.get_base_model() if hasattr(model, "peft_config") else model


def uncompiled(model: Any) -> Any:
    """The model itself, out of what `torch.compile` makes of it."""
    return getattr(model, "_orig_mod", model)
