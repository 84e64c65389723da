"""Whether a folder is one of an adapter that training could go on from, going by its files and its settings."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
# What ours say of their base: a path would differ from store to store, and it is the artifact beside them in the graph.
BASE_NAME = "base_model"


def stored_settings(folder: Path) -> dict[str, Any] | None:
    """The adapter_config.json; None where it is none."""
    try:
        stored = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return stored if isinstance(stored, dict) else None


def fault_of_kind(stored: Mapping[str, Any] | None) -> str | None:
    """Why an adapter of these settings cannot be trained further."""
    if stored is None:
        return f"no {ADAPTER_CONFIG} that can be read, so no adapter. Name the one that has it"
    if stored.get("peft_type") != "LORA":
        return f"an adapter of the kind {stored.get('peft_type')}; training goes on from LoRA and DoRA only"
    return None


def fault_of_adapter(folder: Path) -> str | None:
    """Why the folder holds no adapter that training could go on from."""
    if not folder.is_dir():
        return f"{folder}: no folder of an adapter"
    if reason := fault_of_kind(stored_settings(folder)):
        return f"{folder}: {reason}"
    if not (folder / ADAPTER_WEIGHTS).is_file():
        return (
            f"{folder}: no {ADAPTER_WEIGHTS}. Save the adapter as safetensors: pickled weights are not read"
        )
    return None
