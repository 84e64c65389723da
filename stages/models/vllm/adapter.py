"""How vLLM takes an adapter beside its base, and which it cannot take."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunemill.stages.errors import SettingError
from tunemill.stages.models.adapter_folder import ADAPTER_CONFIG

# Ranks that vLLM has room for.
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
# Parts that vLLM does not load: of an adapter's settings, and the keys of a YAML that ask for them.
PARTS = {
    "use_dora": "peft_use_dora",
    "modules_to_save": "lora_modules_to_save",
    "trainable_token_indices": "peft_trainable_token_indices",
    "target_parameters": "lora_target_parameters",
}


def beside_base(name: str, adapter: Path, instead: str) -> list[str]:
    """Options of `vllm serve` for an adapter, which it then calls `name`.

    Raises SettingError, which ends with what to do `instead`, for one that vLLM cannot take.
    """
    room = adapter_room(adapter, instead)
    return ["--enable-lora", "--max-lora-rank", str(room), "--lora-modules", f"{name}={adapter}"]


def adapter_room(adapter: Path, instead: str) -> int:
    """The rank that vLLM must have room for to take an adapter of the settings in this folder.

    Raises SettingError, which ends with what to do `instead`, for one that vLLM cannot take.
    """
    stored: Mapping[str, Any] = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    if stored.get("peft_type") != "LORA":
        raise SettingError(f"vLLM takes LoRA beside a base, and this is {stored.get('peft_type')}. {instead}")
    for key in PARTS:
        if stored.get(key):
            raise SettingError(f"vLLM takes no adapter with {key} beside its base. {instead}")
    if stored.get("init_lora_weights") == "loftq":
        raise SettingError(
            f"the base of an adapter by LoftQ is a rounded one, and vLLM rounds none. {instead}"
        )
    rank = max([int(stored["r"]), *(int(one) for one in (stored.get("rank_pattern") or {}).values())])
    room = next((one for one in RANKS if one >= rank), None)
    if room is None:
        raise SettingError(f"vLLM takes ranks up to {RANKS[-1]}, and this adapter has {rank}. {instead}")
    return room
