"""Folders in MXFP4 and FP8 are read as numbers in 16 bits."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from support.tiny_model import VOCABULARY, Heard, make_model, workspace
from support.tiny_tokenizer import make_tokenizer
from transformers import AutoModelForCausalLM, GptOssConfig

from tunemill.stages.artifacts import Tokenizer
from tunemill.stages.models.base_model.body import base_model
from tunemill.stages.models.base_model.config import BaseModelConfig
from tunemill.stages.models.loading_body import is_quantized

FP4 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]
UNPACKED: dict[str, Any] = {"model_quantization_config_kwargs": {"dequantize": True}}


def rewrite(folder: Path, tensors: dict[str, torch.Tensor], quantization: dict[str, Any]) -> None:
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": quantization}))


def unpacked(source: Path, kind: str, folder: Path) -> Path:
    out = workspace(folder)
    config = BaseModelConfig(base_model=str(source), model_quantization_config=kind, **UNPACKED)
    assert not list(config.faults())
    base_model(config, tokenizer=Tokenizer(source), upstream=None, out=out, report=Heard().report)
    assert not is_quantized(out.data)
    return out.data


def test_mxfp4(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = GptOssConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=32, num_local_experts=2, num_experts_per_tok=1, eos_token_id=2,
        pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    source = make_tokenizer(tmp_path / "source")
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(source)
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            tensors[name] = tensor
            continue
        experts, inputs, outputs = tensor.shape
        tensors[f"{name}_blocks"] = torch.randint(
            256, (experts, outputs, inputs // 32, 16), dtype=torch.uint8
        )
        tensors[f"{name}_scales"] = torch.randint(
            118, 124, (experts, outputs, inputs // 32), dtype=torch.uint8
        )
    kept = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    rewrite(source, tensors, {"quant_method": "mxfp4", "modules_to_not_convert": kept})
    data = unpacked(source, "Mxfp4Config", tmp_path / "out")
    name = "model.layers.0.mlp.experts.gate_up_proj"
    found = load_file(data / "model.safetensors")[name]
    blocks, scales = tensors[f"{name}_blocks"], tensors[f"{name}_scales"]
    # Two values in a byte, the first in the low half; 32 of them share a power of two.
    values = torch.tensor(FP4)[torch.stack((blocks & 15, blocks >> 4), dim=-1).long().flatten(-2)]
    expected = (values * 2.0 ** (scales.float() - 127).unsqueeze(-1)).flatten(-2).transpose(1, 2)
    assert torch.equal(found, expected.to(torch.bfloat16))
    model = AutoModelForCausalLM.from_pretrained(data)
    assert torch.equal(model.model.layers[0].mlp.experts.gate_up_proj, found)


def test_fp8(tmp_path: Path) -> None:
    source = make_model(tmp_path / "source", dtype=torch.bfloat16, hidden_size=128, intermediate_size=128)
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        tensors[name] = tensor
        if "_proj" in name:
            tensors[name] = (tensor.float() * 4).to(torch.float8_e4m3fn)
            tensors[f"{name}_scale_inv"] = torch.full((1, 1), 0.25)
    rewrite(source, tensors, {"quant_method": "fp8", "weight_block_size": [128, 128]})
    data = unpacked(source, "FineGrainedFP8Config", tmp_path / "out")
    name = "model.layers.1.mlp.up_proj.weight"
    found = load_file(data / "model.safetensors")[name]
    assert torch.equal(found, (tensors[name].float() * 0.25).to(torch.bfloat16))


def test_what_is_refused(tmp_path: Path) -> None:
    source = make_model(tmp_path / "source")
    rewrite(source, load_file(source / "model.safetensors"), {"quant_method": "mxfp4"})
    for kind in (None, "FineGrainedFP8Config"):
        given = {} if kind is None else {"model_quantization_config": kind, **UNPACKED}
        reasons = [fault.reason for fault in BaseModelConfig(base_model=str(source), **given).faults()]
        assert len(reasons) == 1 and "model_quantization_config: Mxfp4Config and" in reasons[0]
    with pytest.raises(ValidationError, match=r"Set model_quantization_config_kwargs: {dequantize: true}"):
        BaseModelConfig(base_model=str(source), model_quantization_config="Mxfp4Config")
