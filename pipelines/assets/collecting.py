"""Definitions without the garbage collector, which would look at all of them again and again while they are made."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def not_collecting() -> Iterator[None]:
    """No search for circles of garbage inside: making thousands of definitions takes half as long so."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
