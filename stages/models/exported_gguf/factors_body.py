"""A LoRA adapter as a GGUF file, which llama.cpp loads beside its base."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf

from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.models.adapter_folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from tunemill.stages.models.exported_gguf.tensors_body import (
    TYPES,
    Planned,
    name_in_file,
    place_of,
    turned_heads,
)
from tunemill.stages.models.exported_gguf.values_body import FILE_TYPES
from tunemill.stages.models.gguf_families import Family
from tunemill.stages.models.weights import tensors_of_file

# What PEFT has and llama.cpp has not, with what asks for it.
UNKNOWN = {
    "use_dora": "peft_use_dora",
    "modules_to_save": "lora_modules_to_save",
    "trainable_token_indices": "peft_trainable_token_indices",
    "target_parameters": "lora_target_parameters",
    "lora_bias": "lora_bias",
    "layer_replication": "peft_layer_replication",
    "alora_invocation_tokens": "alora_invocation_tokens",
}
NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<factor>[AB])\.weight")


def fault_of_settings(stored: Mapping[str, Any]) -> str | None:
    """What of an adapter's settings llama.cpp cannot load beside a base."""
    if stored.get("peft_type") != "LORA":
        return f"it is of the kind {stored.get('peft_type')}"
    if stored.get("init_lora_weights") == "loftq":
        return "it belongs to a base that is rounded (peft_init_lora_weights: loftq)"
    asked = [key for setting, key in UNKNOWN.items() if stored.get(setting)]
    return f"it trains what {asked[0]} asks for" if asked else None


def plan_adapter(folder: Path, stored: Mapping[str, Any], family: Family, file_type: str) -> list[Planned]:
    """The factors of all modules, in an order that hangs on their names alone.

    llama.cpp multiplies by alpha / r with one alpha; what PEFT multiplies by instead goes into the second factor.
    """
    settings = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    if reason := fault_of_settings(settings):
        raise SettingError(
            f"pipeline.export: llama.cpp loads no such adapter beside its base: {reason}. Take `of: adapter` out, so "
            f"that the whole model is exported."
        )
    found = []
    for name, tensor in tensors_of_file(folder / ADAPTER_WEIGHTS).items():
        split = NAME.fullmatch(name)
        if split is None:
            raise UserError(
                f"pipeline.export: {name}: llama.cpp has no such part of an adapter. Take gguf out of export."
            )
        weight = f"{split['module']}.weight"
        is_second = split["factor"] == "B"
        found.append(
            Planned(
                f"{name_in_file(weight, stored, family)}.lora_{split['factor'].lower()}",
                TYPES[file_type],
                tensor.shape,
                source=tensor,
                heads=turned_heads(weight, stored, family) if is_second else None,
                times=_scale(settings, split["module"]) if is_second else 1.0,
            )
        )
    return sorted(found, key=lambda tensor: place_of(tensor.name))


def _scale(settings: Mapping[str, Any], module: str) -> float:
    """What PEFT multiplies by, beside what llama.cpp does: alpha of all over the rank of the module."""
    rank = _of_module(settings.get("rank_pattern"), module) or settings["r"]
    alpha = _of_module(settings.get("alpha_pattern"), module) or settings["lora_alpha"]
    wanted = alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
    return float(wanted / (settings["lora_alpha"] / rank))


def _of_module(patterns: Mapping[str, Any] | None, module: str) -> Any:
    """The value of the first pattern that a module's name ends with."""
    return next(
        (value for key, value in (patterns or {}).items() if re.match(rf"(.*\.)?({key})$", module)), None
    )


def add_adapter(writer: gguf.GGUFWriter, folder: Path, file_type: str) -> None:
    """Add what the head of such a file says."""
    settings = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(settings["lora_alpha"]))
    writer.add_name("adapter")
    writer.add_file_type(FILE_TYPES[file_type])
