"""Tunemill: LLM post-training as a graph of cached stages in Dagster."""

from typing import Any

__version__ = "0.1.0"
# What a Dagster project names in `defs.yaml`. It costs the import of Dagster, so it waits until it is asked for.
COMPONENTS = {"PipelinesComponent": "tunemill.pipelines.assets.component"}


def __getattr__(name: str) -> Any:
    if name not in COMPONENTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(COMPONENTS[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *COMPONENTS]
