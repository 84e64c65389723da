"""Tiny random models of the families that people fine-tune, each in a folder with the tiny tokenizer."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    Gemma3TextConfig,
    Glm4Config,
    GptOssConfig,
    Lfm2Config,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
)

from support.families import SIZES, shake
from support.tiny_model import VOCABULARY
from support.tiny_tokenizer import make_tokenizer


@dataclass(frozen=True)
class Family:
    """A family: its config, what is set in it beside the sizes, and where an adapter goes."""

    config: type[PreTrainedConfig]
    settings: dict[str, Any] = field(default_factory=dict)
    targets: tuple[str, ...] = ("q_proj", "v_proj")


GEMMA = {"head_dim": 8, "num_hidden_layers": 2, "sliding_window": 8, "query_pre_attn_scalar": 8}
EXPERTS = {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}
FAMILIES = {
    "llama": Family(LlamaConfig),
    "qwen2": Family(Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": Family(Qwen3Config, {"head_dim": 8}),
    "qwen3_moe": Family(Qwen3MoeConfig, {"head_dim": 8, **EXPERTS}),
    "mistral": Family(MistralConfig, {"sliding_window": 8}),
    "mixtral": Family(MixtralConfig, {"num_local_experts": 4}),
    "gemma2": Family(Gemma2Config, GEMMA),
    "gemma3_text": Family(Gemma3TextConfig, {**GEMMA, "layer_types": ["sliding_attention", "full_attention"]}),
    "phi3": Family(Phi3Config, {}, ("qkv_proj", "gate_up_proj")),
    "smollm3": Family(SmolLM3Config, {"num_hidden_layers": 2, "no_rope_layers": [1, 0]}),
    "lfm2": Family(
        Lfm2Config,
        {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"], "conv_L_cache": 3, "block_ff_dim": 24},
        ("q_proj", "v_proj", "in_proj", "w1"),
    ),
    "gpt_oss": Family(GptOssConfig, {"head_dim": 8, "num_local_experts": 4, "sliding_window": 8}),
    "glm4": Family(Glm4Config, {"head_dim": 8}, ("q_proj", "v_proj", "gate_up_proj")),
}  # fmt: skip


def make_folder(name: str, folder: Path, **sizes: int) -> Path:
    """A model folder of this family; weights are far from their initial zeros and ones. `sizes` replace the small."""
    family = FAMILIES[name]
    ids = {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0, "vocab_size": VOCABULARY}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(family.config(**{**SIZES, **ids, **family.settings, **sizes}))
    shake(model)
    model.save_pretrained(folder)
    make_tokenizer(folder)
    # As transformers reads it beside this config, so that it is the same where there is none.
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    return folder
