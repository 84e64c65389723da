"""The averaged weights of optimizers that need no schedule."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def averages_used(optimizer: Any) -> Iterator[None]:
    """While open, the model has the averaged weights of an optimizer that needs no schedule, which are its result."""
    if not (callable(getattr(optimizer, "eval", None)) and callable(getattr(optimizer, "train", None))):
        yield
        return
    # Switching there and back again rounds the weights: afterwards they are those that were there before.
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    before = [parameter.detach().clone() for parameter in trained]
    optimizer.eval()
    yield
    optimizer.train()
    with torch.no_grad():
        for parameter, value in zip(trained, before, strict=True):
            parameter.copy_(value)
