"""Whether a folder's tensors are those of the model that its config describes, going by names and shapes alone."""

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import torch

from tunemill.stages.errors import SettingError, SourceError
from tunemill.stages.models.skeleton_body import skeleton_of
from tunemill.stages.models.weights import tensors_of_model

SHOWN = 3
# Constants that older versions of transformers stored, and that models now make themselves.
CONSTANT = re.compile(r"\.(masked_bias|inv_freq)$")
# Transformers joins these into one tensor a layer: what is missing of it has no name in the model.
EXPERT = re.compile(r"(?P<before>.*\.experts\.)(?P<number>\d+)(?P<after>\..*)")


def check_fit(folder: Path, model_config: Any, *, overridden: bool = False) -> None:
    """Transformers' own loading, with renamed, joined, tied and ignored tensors, on shapes instead of weights.

    It would draw what is missing at random and leave out what it does not know. Raises SourceError, or with
    overrides SettingError, naming tensors.
    """
    stored = tensors_of_model(folder)
    shapes = {name: torch.empty(tensor.shape, device="meta") for name, tensor in stored.items()}
    if lost := missing_experts(stored):
        raise SourceError(
            f"base_model: {folder}: {len(lost)} tensors of experts are missing from the files, such as {_some(lost)}. "
            f"Fetch the model again."
        )
    try:
        _, info = type(skeleton_of(model_config)).from_pretrained(
            None,
            config=model_config,
            state_dict=shapes,
            device_map={"": "meta"},
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except RuntimeError as error:
        raise SourceError(
            f"base_model: {folder}: its tensors cannot be put together to this model: {str(error).splitlines()[0]} "
            f"Fetch the model again."
        ) from None
    misfits = {
        "missing from the files": info["missing_keys"],
        "of another shape": [key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]],
        "in the files but not in the model": [
            key for key in info["unexpected_keys"] if not CONSTANT.search(key)
        ],
    }
    found = [
        f"{len(names)} tensors are {how}, such as {_some(names)}" for how, names in misfits.items() if names
    ]
    if not found:
        return
    said = f"base_model: {folder}: with this config {'; '.join(found)}."
    if overridden:
        raise SettingError(
            f"{said} Correct overrides_of_model_config, or set reinit_weights: true to draw new weights."
        )
    raise SourceError(
        f"{said} The folder is not the one that its config.json describes: fetch the model again, correct config.json, "
        f"or set reinit_weights: true to draw new weights."
    )


def missing_experts(names: Iterable[str]) -> list[str]:
    """Tensors that some experts of a layer have and others lack."""
    there = set(names)
    parts = [found for name in there if (found := EXPERT.fullmatch(name))]
    numbers: dict[str, set[str]] = {}
    ends: dict[str, set[str]] = {}
    for part in parts:
        numbers.setdefault(part["before"], set()).add(part["number"])
        ends.setdefault(part["before"], set()).add(part["after"])
    wanted = {f"{layer}{n}{end}" for layer in numbers for n in numbers[layer] for end in ends[layer]}
    return sorted(wanted - there)


def _some(names: Collection[str]) -> str:
    shown = sorted(names)[:SHOWN]
    return ", ".join(shown) + (", ..." if len(names) > SHOWN else "")
