"""Merging into a base that ties head and embeddings and stores both."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from support.tiny_model import Heard, make_model, workspace
from support.tiny_tokenizer import make_tokenizer
from transformers import AutoModelForCausalLM

from tunemill.stages.artifacts import Adapter, Model
from tunemill.stages.models.merged.body import merge
from tunemill.stages.models.merged.config import MergedConfig
from tunemill.stages.models.quantized.body import quantize
from tunemill.stages.models.quantized.config import QuantizedConfig

IDS = torch.arange(3, 40)[None]


def twice(folder: Path) -> Path:
    """A model whose file holds an equal head beside its tied embeddings."""
    tensors = load_file(make_model(folder, tie_word_embeddings=True) / "model.safetensors")
    head = {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
    save_file({**tensors, **head}, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize(
    "lora", [{"modules_to_save": ["lm_head"]}, {"target_modules": ["q_proj", "lm_head"]}]
)
def test_a_retrained_head_is_a_head_of_its_own(tmp_path: Path, lora: dict[str, Any]) -> None:
    base = twice(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(1)
    adapted = get_peft_model(
        model, LoraConfig(**{"target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **lora})
    )
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    adapter = Adapter(make_tokenizer(tmp_path / "adapter"))
    out = workspace(tmp_path / "out")
    merge(MergedConfig(), Model(base), None, adapter, out, Heard().report)
    assert json.loads((out.data / "config.json").read_text())["tie_word_embeddings"] is False
    merged = AutoModelForCausalLM.from_pretrained(out.data).eval()
    whole = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter.path).eval()
    with torch.no_grad():
        assert torch.allclose(merged(IDS).logits, whole(IDS).logits, atol=1e-4)
    quantize(QuantizedConfig(), Model(out.data), workspace(tmp_path / "int8"), Heard().report)
