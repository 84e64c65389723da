"""Whether a folder is one of a model, going by its files."""

import json
from pathlib import Path
from typing import Any

from tunemill.stages.models.files import weight_files
from tunemill.stages.text_files import MARK, fault_of_text_file


def fault_of_folder(folder: Path, *, reads_weights: bool = True, instead: str = "") -> str | None:
    """What the folder lacks to be that of a model, with its weights where they are read; `instead`: another remedy."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "no such folder"
        return f"{folder}: {what}; name the folder of a model"
    if not (folder / "config.json").is_file():
        return f"{folder}: no config.json, so no model folder. Name the one that has it"
    try:
        weights = weight_files(folder) if reads_weights else []
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{folder}: its index of weights is damaged. Fetch the model again"
    if reads_weights and not weights:
        return (
            f"{folder}: no *.safetensors. Save the weights as safetensors (load the model with transformers and call "
            f"save_pretrained){instead}"
        )
    return None


def settings_of(folder: Path) -> dict[str, Any] | None:
    """The config.json; None where it is none."""
    return _object_of(folder / "config.json")


def fault_of_generation(folder: Path) -> str | None:
    """Why transformers makes no settings of a generation_config.json, where the folder has one."""
    path = folder / "generation_config.json"
    return fault_of_json(path) if path.is_file() and _object_of(path) is None else None


def _object_of(path: Path) -> dict[str, Any] | None:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return stored if isinstance(stored, dict) else None


def fault_of_json(path: Path) -> str:
    """Why a file is no JSON object."""
    if path.is_file() and (reason := fault_of_text_file(path)):
        return reason
    if path.is_file() and path.read_bytes().startswith(MARK.encode()):
        return f"{path} begins with a byte order mark, which transformers does not read; save it without the mark"
    return no_object(path)


def no_object(path: Path) -> str:
    """What is said of a file that is text, and damaged."""
    return f"{path.parent}: its {path.name} is no JSON object. Fetch the model again"
