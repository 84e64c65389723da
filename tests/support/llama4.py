"""A tiny Llama 4, as transformers stores it and with its experts as linear modules, plain or in 4 bits."""

import json
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import quantize_4bit
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Llama4TextConfig

from support.tiny_model import VOCABULARY
from support.tiny_tokenizer import make_tokenizer

EXPERTS = 2
SETTINGS: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 64,
    "intermediate_size_mlp": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "num_local_experts": EXPERTS,
    "num_experts_per_tok": 1,
    "interleave_moe_layer_step": 1,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def make_llama4(folder: Path) -> Path:
    """The model as transformers stores it, with its tokenizer."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(Llama4TextConfig(**SETTINGS))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    model.to(torch.bfloat16).save_pretrained(folder)
    make_tokenizer(folder)
    return folder


def linearize(source: Path, target: Path, *, in_4_bits: bool = False, sees: bool = False) -> Path:
    """The same model with each expert in linear modules; `sees`: as the text part of a larger model."""
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        place, _, kind = name.rpartition(".")
        for number in range(EXPERTS if kind.endswith("_proj") else 0):
            # (in, out) as the model multiplies, and (out, in) in a linear module.
            weights = {"down_projs": tensor[number].T}
            if kind == "gate_up_proj":
                weights = {"gate_projs": tensor[number, :, :64].T, "up_projs": tensor[number, :, 64:].T}
            for part, weight in weights.items():
                tensors[f"{place}.{part}.{number}.weight"] = weight.contiguous()
        if not kind.endswith("_proj"):
            tensors[name] = tensor
    settings = json.loads((source / "config.json").read_text())
    if in_4_bits:
        tensors = dict(part for one in tensors.items() for part in _packed(*one))
        settings["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    if sees:
        tensors = {f"language_model.{name}": tensor for name, tensor in tensors.items()}
        tensors["vision_model.class_embedding"] = torch.ones(4)
        architecture = "Llama4ForConditionalGeneration"
        settings = {"model_type": "llama4", "architectures": [architecture], "text_config": settings}
    make_tokenizer(target)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    (target / "config.json").write_text(json.dumps(settings))
    return target


def _packed(name: str, tensor: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    if "_proj" not in name:
        return [(name, tensor)]
    packed, state = quantize_4bit(tensor, blocksize=64, compress_statistics=True, quant_type="nf4")
    return [(name, packed), *((f"{name}.{end}", part) for end, part in state.as_dict(packed=True).items())]
