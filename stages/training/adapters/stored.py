"""A stored adapter as the start of further training: what it already decides, and of which base it says it is."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunemill.stages.models.adapter_folder import stored_settings

# `owner/name` of the Hub.
OF_HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
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
    "start_sequences",
    "peft_layer_replication",
    "peft_trainable_token_indices",
    "peft_ensure_weight_tying",
)


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


def names_another_base(folder: Path, base: str | None) -> str | None:
    """What is said where the adapter names another model of the Hub than `base`, the owner/name of the one that is
    used. Copies of one model have many names, so it is no reason to refuse: the shapes of its tensors are."""
    said = (stored_settings(folder) or {}).get("base_model_name_or_path")
    if (
        base is None
        or not isinstance(said, str)
        or not OF_HUB.fullmatch(said)
        or said.lower() == base.lower()
    ):
        return None
    return (
        f"the adapter in lora_model_dir says that it was trained on {said}, and base_model is {base}: unless one is a "
        f"copy of the other it is another base, of the same shapes"
    )
