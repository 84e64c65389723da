"""A stored adapter as the start of further training: what its folder must hold, and what it already decides."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
# Keys of ours -> those of PEFT that a stored adapter decides. A key that is given must say the same.
DECIDED = {
    "lora_r": "r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "lora_target_modules": "target_modules",
    "lora_modules_to_save": "modules_to_save",
    "peft_use_dora": "use_dora",
    "peft_use_rslora": "use_rslora",
}
# Keys that shape a new adapter, and of which a stored one says nothing that could be compared.
OF_NEW_ONES = (
    "lora_target_linear",
    "lora_target_parameters",
    "lora_fan_in_fan_out",
    "lora_rank_pattern",
    "lora_alpha_pattern",
    "lora_exclude_modules",
    "peft_layers_to_transform",
    "peft_layers_pattern",
    "peft_init_lora_weights",
    "peft",
    "peft_layer_replication",
    "peft_trainable_token_indices",
    "peft_ensure_weight_tying",
)


def stored_settings(folder: Path) -> dict[str, Any] | None:
    """The adapter_config.json; None where it is none."""
    try:
        stored = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return stored if isinstance(stored, dict) else None


def fault_of_adapter(folder: Path) -> str | None:
    """Why the folder holds no adapter that training could go on from."""
    if not folder.is_dir():
        return f"{folder}: no folder of an adapter"
    stored = stored_settings(folder)
    if stored is None:
        return f"{folder}: no {ADAPTER_CONFIG} that can be read, so no adapter. Name the folder that has it"
    if stored.get("peft_type") != "LORA":
        return f"{folder}: an adapter of the kind {stored.get('peft_type')}; training goes on from LoRA and DoRA only"
    if not (folder / ADAPTER_WEIGHTS).is_file():
        return (
            f"{folder}: no {ADAPTER_WEIGHTS}. Save the adapter as safetensors: pickled weights are not read"
        )
    return None


def disagreement(key: str, given: Any, stored: Mapping[str, Any]) -> str | None:
    """Why a key that is given does not go with a stored adapter."""
    if key in OF_NEW_ONES:
        return "shapes a new adapter, and lora_model_dir names one that is trained on. Take it out"
    found = stored.get(DECIDED[key])
    same = (
        sorted(given) == sorted(found)
        if isinstance(given, list) and isinstance(found, list)
        else given == found
    )
    return (
        None if same else f"{given}, but the adapter in lora_model_dir has {found}. Take it out, or set that"
    )
