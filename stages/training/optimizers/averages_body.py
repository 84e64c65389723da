"""The averaged weights of optimizers that need no schedule."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def averages_used(optimizer: Any) -> Iterator[None]:
    """While open, the model has the averaged weights of an optimizer that needs no schedule, which are its result."""
    for mode in ("eval", "train"):
        switch = getattr(optimizer, mode, None)
        if callable(switch):
            switch()
        if mode == "eval":
            yield
