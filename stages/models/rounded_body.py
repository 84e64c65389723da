"""Weights rounded through few bits and held in their own type: the base of an adapter that started with LoftQ.

The adapter says in its config how its base is rounded, as PEFT writes it. Rounding is always done on the CPU, so that
training, merging and evaluating find the same numbers on every machine.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel
from peft.tuners.lora import LoraLayer

from tunemill.stages.models.adapter_folder import ADAPTER_CONFIG
from tunemill.stages.models.experts_body import rounded
from tunemill.stages.models.linear_experts_body import fit_experts


def through_bits(weight: Any, bits: int) -> Any:
    """The weight as NF4 (4) or int8 with one scale a row (8) hold it, in its own type and place.

    Both are those of PEFT's LoftQ: in 4 bits blocks of 64, whose scales stay in float32.
    """
    plain = weight.detach().to("cpu", torch.float32).contiguous()
    back = rounded(plain, "nf4" if bits == 4 else "int8")
    return back.reshape(weight.shape).to(weight.device, weight.dtype)


def rounding_of(adapter_config: Mapping[str, Any]) -> int | None:
    """The bits that the base of a stored adapter is rounded through, where its config says so."""
    if adapter_config.get("init_lora_weights") != "loftq":
        return None
    bits: int = adapter_config["loftq_config"]["loftq_bits"]
    return bits


def with_adapter(model: Any, folder: Path, *, round_base: bool = True, **settings: Any) -> Any:
    """The model with a stored adapter, beside the base that the adapter belongs to.

    PEFT would round the base by itself, but on a GPU only. Without `round_base` whoever gives the model its weights
    rounds them.
    """
    fit_experts(model, folder)
    stored = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    bits = rounding_of(stored)
    if bits is None:
        return PeftModel.from_pretrained(model, folder, **settings)
    config = PeftConfig.from_peft_type(**{**stored, "init_lora_weights": True, "loftq_config": {}})
    assert isinstance(config, LoraConfig), "LoftQ is LoRA's"
    adapted = PeftModel.from_pretrained(model, folder, config=config, **settings)
    for layer in adapted.modules() if round_base else ():
        if isinstance(layer, LoraLayer):
            weight = layer.get_base_layer().weight
            weight.data = through_bits(weight.data, bits)
    return adapted


def mark_rounded(config: Any, bits: int) -> None:
    """Write into the settings of an adapter that its base is rounded, in PEFT's words."""
    config.init_lora_weights = "loftq"
    config.loftq_config = {"loftq_bits": bits, "loftq_iter": 1}
