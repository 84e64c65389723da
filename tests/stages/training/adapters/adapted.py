"""Trains an adapter on a tiny model, and merges it."""

from pathlib import Path
from typing import Any

import torch
from support.quantized import WIDE, quantized
from support.tiny_model import Heard, make_model, random_rows, training_data, workspace
from support.tiny_tokenizer import make_tokenizer
from transformers import AutoModelForCausalLM, PreTrainedConfig

from tunemill.stages.artifacts import Adapter, BaseModel, Model, QuantizedBase
from tunemill.stages.models.merged.body import merge
from tunemill.stages.models.merged.config import MergedConfig
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

ROWS = random_rows(4, longest=12)
LINEAR: dict[str, Any] = {"lora_target_linear": True}


def llama(folder: Path, **changes: Any) -> BaseModel:
    """A tiny Llama."""
    return BaseModel(make_model(folder, **{**WIDE, **changes}))


def model_of(folder: Path, config: PreTrainedConfig) -> BaseModel:
    """A tiny model of any family, with the tiny tokenizer."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    make_tokenizer(folder)
    return BaseModel(folder)


def train(folder: Path, base: Model, *, steps: int = 8, **settings: Any) -> tuple[Adapter, Heard]:
    """An adapter of rank 4, trained on four rows."""
    config = SftConfig(
        **{
            "adapter": "lora",
            "lora_r": 4,
            "lora_alpha": 8,
            "learning_rate": 1e-2,
            "max_steps": steps,
            "logging_steps": 1,
            "save_strategy": "no",
            **settings,
        }
    )
    out, heard = workspace(folder), Heard()
    data = training_data(folder / "rows", ROWS)
    sft(config, base_model=base, training_data=data, evaluation_data=None, out=out, report=heard.report)
    return Adapter(out.data), heard


def merged(
    folder: Path, base: BaseModel, adapter: Adapter, frozen: QuantizedBase | None = None, **settings: Any
) -> tuple[Path, Heard]:
    """The adapter folded into its base."""
    out, heard = workspace(folder), Heard()
    config = MergedConfig(has_quantized_base=frozen is not None, **settings)
    merge(config, base_model=base, quantized_base=frozen, adapter=adapter, out=out, report=heard.report)
    return out.data, heard


def train_and_merge(
    folder: Path, base: BaseModel, *, bits: int | None = None, rounded_experts: bool = False, **settings: Any
) -> tuple[Path, Heard, Heard]:
    """The merged model's folder, and what training and merging said."""
    more = {"quantize_moe_experts": True} if rounded_experts else {}
    asked = {} if bits is None else {f"load_in_{bits}bit": True}
    frozen = quantized(folder / "in bits", base, **asked, **more)[0] if asked else None
    adapter, trained = train(folder / "trained", frozen or base, **asked, **settings)
    data, heard = merged(folder / "merged", base, adapter, frozen, **more)
    assert heard.summary["max_abs_logit_difference"] <= heard.summary["logit_tolerance"]
    assert heard.summary["max_abs_logit_change"] > 10 * heard.summary["max_abs_logit_difference"]
    return data, trained, heard
