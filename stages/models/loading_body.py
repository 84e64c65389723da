"""Loading a model folder, quantized by bitsandbytes or not."""

import json
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn.modules import Linear4bit
from transformers import AutoModelForCausalLM

COMPUTE_TYPE = "bnb_4bit_compute_dtype"


def is_quantized(folder: Path) -> bool:
    """Whether the weights in a model folder are quantized."""
    return quantization_of(folder) is not None


def quantization_of(folder: Path) -> dict[str, Any] | None:
    """What the config.json says of its quantization."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    found: dict[str, Any] | None = config.get("quantization_config")
    return found


def load_causal_lm(folder: Path, *, dtype: Any, compute_type: Any = None, **settings: Any) -> Any:
    """The model, in `dtype` but for quantized weights, which are moved to the device that trains right away.

    4-bit weights are multiplied in the type that the folder names, else in `compute_type`, else in that of their
    inputs.
    """
    stored = quantization_of(folder)
    if stored is None:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **settings)
    place = {"": torch.cuda.current_device() if torch.cuda.is_available() else "cpu"}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **{"device_map": place, **settings})
    for module in model.modules():
        if isinstance(module, Linear4bit):
            # On some CPUs it would store its weight anew, in bfloat16, as soon as it is evaluated.
            module.support_avx512bf16_for_cpu = False
            if COMPUTE_TYPE not in stored:
                module.compute_dtype = compute_type
                module.compute_type_is_set = compute_type is not None
    return model
