"""LLaMA-Adapter: prompts that the attention of the upper layers looks at through a gate, and their files.

The gates start at 0, so that the model begins as it was. Each token looks at the prompts by itself, whatever stands
beside it in a sequence: packed rows compute the same.

Source: Zhang et al. 2023, "LLaMA-Adapter: Efficient Fine-tuning of Language Models with Zero-init Attention" (arXiv
2303.16199), as PEFT has it.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import AdaptionPromptConfig, get_peft_model, get_peft_model_state_dict

from tunemill.stages.errors import SettingError
from tunemill.stages.models.adapter_body import write_adapter
from tunemill.stages.models.prompts import fault_of_prompts
from tunemill.stages.training.keys.adapter import AdapterKeys


def add_prompts(config: AdapterKeys, model: Any, seed: int) -> Any:
    """The model with prompts, which are drawn from `seed`.

    Raises SettingError for a model that PEFT has no such prompts for, and where it has fewer layers.
    """
    if reason := fault_of_prompts(model.config.to_dict()):
        raise SettingError(f"adapter: {reason}.")
    layers, there = config.prompts.layers, model.config.num_hidden_layers
    assert layers is not None, "the config asks for it"
    if layers > there:
        raise SettingError(f"peft_adapter: layers: {layers}: the model has {there} layers.")
    prompts = AdaptionPromptConfig(
        task_type="CAUSAL_LM", adapter_layers=layers, adapter_len=config.prompts.len
    )
    torch.manual_seed(seed)
    adapted = get_peft_model(model, prompts)
    # What other adapters are saved by: prompts take nothing out of the base, and put nothing into it.
    adapted.first_factors, adapted.folded, adapted.rounding, adapted.rounded_through = {}, [], None, None
    return adapted


def save_prompts(model: Any, folder: Path, gathered: Mapping[str, Any] | None = None) -> None:
    """Write the prompts and their settings, as PEFT reads them; `gathered` as `save_adapter` has it."""
    weights = gathered or get_peft_model_state_dict(model, save_embedding_layers=False)
    write_adapter(weights, copy.deepcopy(model.peft_config["default"]), folder)
