"""Importing many modules at once."""

import gc
from importlib import import_module
from types import ModuleType


def import_to_stay(name: str) -> ModuleType:
    """Import a module. What it imports stays, so to look for garbage in it, then or later, is for nothing."""
    gc.disable()
    try:
        return import_module(name)
    finally:
        gc.freeze()
        gc.enable()
