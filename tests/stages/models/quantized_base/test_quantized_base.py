"""The base in 4 or 8 bits: what is stored, and that it is the same each time."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from support.quantized import make_base, quantized
from support.tiny_model import folder_bytes, make_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config

from tunemill.stages.artifacts import BaseModel
from tunemill.stages.errors import SettingError
from tunemill.stages.models.dequantize_body import StoredBase
from tunemill.stages.models.loading_body import load_causal_lm
from tunemill.stages.models.quantized_base.config import QuantizedBaseConfig

IDS = torch.arange(3, 60).reshape(3, 19)
PROJECTION = "model.layers.1.self_attn.q_proj.weight"


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits.float()


@pytest.mark.parametrize("bits", ["load_in_4bit", "load_in_8bit"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_time_the_same_and_read_back_as_stored(tmp_path: Path, bits: str, dtype: torch.dtype) -> None:
    base = make_base(tmp_path / "base", dtype)
    made, heard = quantized(tmp_path / "one", base, **{bits: True})
    again, _ = quantized(tmp_path / "two", base, **{bits: True})
    assert folder_bytes(made.path) == folder_bytes(again.path)
    assert heard.summary["quantized_modules"] == 14
    assert heard.summary["bytes_after"] < heard.summary["bytes_before"]
    assert 0 < heard.summary["largest_relative_error"] < (0.15 if bits == "load_in_4bit" else 0.02)
    stored, plain = StoredBase(made.path), load_file(base.path / "model.safetensors")
    assert stored.quantized == {name for name in plain if "_proj" in name}
    model = AutoModelForCausalLM.from_pretrained(made.path, dtype=torch.float32).dequantize()
    weights = model.state_dict()
    for name, weight in plain.items():
        assert stored.read(name).shape == weight.shape
        torch.testing.assert_close(stored.read(name).float(), weights[name], atol=0, rtol=0)
    assert AutoTokenizer.from_pretrained(made.path).chat_template is not None


def test_a_4_bit_model_computes_with_the_weights_that_it_stores(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    made, _ = quantized(tmp_path / "made", base)
    stored = StoredBase(made.path)
    dense = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32)
    dense.load_state_dict({name: stored.read(name).float() for name in dense.state_dict()})
    loaded = load_causal_lm(made.path, dtype=torch.float32)
    torch.testing.assert_close(logits(loaded), logits(dense), atol=1e-4, rtol=1e-4)
    # Evaluating it leaves its weights as they lie in the file, on every CPU.
    packed = load_file(made.path / "model.safetensors")[PROJECTION]
    held = loaded.model.layers[1].self_attn.q_proj.weight.data
    assert torch.equal(held.view(torch.uint8), packed.view(torch.uint8))


def test_settings_reach_bitsandbytes(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", num_hidden_layers=1)

    def config_of(name: str, **settings: Any) -> dict[str, Any]:
        made, _ = quantized(tmp_path / name, base, **settings)
        found: dict[str, Any] = json.loads((made.path / "config.json").read_text())["quantization_config"]
        return found

    plain = config_of("plain", load_in_4bit=True)
    assert plain["bnb_4bit_quant_type"] == "nf4" and plain["bnb_4bit_use_double_quant"] is True
    assert plain["bnb_4bit_quant_storage"] == "bfloat16" and "bnb_4bit_compute_dtype" not in plain
    inside = {
        "bnb_4bit_use_double_quant": False,
        "bnb_4bit_quant_storage": "uint8",
        "llm_int8_skip_modules": ["q_proj"],
    }
    asked = config_of(
        "asked",
        load_in_4bit=True,
        bnb_4bit_quant_type="fp4",
        bnb_4bit_compute_dtype="bfloat16",
        bnb_config_kwargs=inside,
    )
    assert asked["bnb_4bit_quant_type"] == "fp4" and asked["bnb_4bit_use_double_quant"] is False
    assert asked["bnb_4bit_quant_storage"] == "uint8" and asked["bnb_4bit_compute_dtype"] == "bfloat16"
    stored = StoredBase(tmp_path / "asked" / "data")
    assert {name.split(".")[4] for name in stored.quantized if "self_attn" in name} == {
        "k_proj",
        "v_proj",
        "o_proj",
    }
    assert not any(name.endswith("nested_absmax") for name in stored.tensors)
    assert "lm_head.weight" not in stored.quantized
    loaded = load_causal_lm(tmp_path / "asked" / "data", dtype=torch.float32, compute_type=torch.float32)
    assert loaded.model.layers[0].mlp.up_proj.compute_dtype == torch.bfloat16
    loaded = load_causal_lm(tmp_path / "plain" / "data", dtype=torch.float32, compute_type=torch.float16)
    assert loaded.model.layers[0].mlp.up_proj.compute_dtype == torch.float16
    eight = config_of("eight", load_in_8bit=True, bnb_config_kwargs={"llm_int8_threshold": 4})
    assert eight["load_in_8bit"] is True and eight["llm_int8_threshold"] == 4


def test_rows_that_cannot_be_read_back_stay_as_they_are(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", hidden_size=32, intermediate_size=64)
    made, heard = quantized(tmp_path / "made", base)
    assert {name.split(".")[-2] for name in StoredBase(made.path).quantized} == {"down_proj"}
    assert "12 linear modules stay as they are" in heard.of("log")[0]["message"]
    narrow = BaseModel(make_model(tmp_path / "narrow", hidden_size=32, intermediate_size=32))
    with pytest.raises(SettingError, match=r"none can be quantized: their inputs .* no multiple of 64"):
        quantized(tmp_path / "none", narrow)
    with pytest.raises(SettingError, match=r"no_proj: no linear module of this model. It has down_proj"):
        quantized(
            tmp_path / "unknown",
            base,
            load_in_8bit=True,
            bnb_config_kwargs={"llm_int8_skip_modules": ["no_proj"]},
        )


def test_weights_stored_in_by_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=416, n_embd=64, n_layer=1, n_head=2, n_positions=64, eos_token_id=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    made, heard = quantized(tmp_path / "made", BaseModel(tmp_path / "base"))
    assert heard.summary["quantized_modules"] == 4 and heard.summary["largest_relative_error"] < 0.15
    plain, stored = load_file(tmp_path / "base" / "model.safetensors"), StoredBase(made.path)
    assert all(stored.read(name).shape == weight.shape for name, weight in plain.items())


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"bnb_4bit_quant_type": "fp4", "bnb_config_kwargs": {"bnb_4bit_quant_type": "nf4"}}, "Keep one"),
        ({"bnb_config_kwargs": {"llm_int8_has_fp16_weight": True}}, "Input should be False"),
        ({"bnb_config_kwargs": {"no_such": 1}}, "Extra inputs"),
        ({"bnb_config_kwargs": {"llm_int8_threshold": 4}}, "asks for nothing with load_in_4bit"),
        (
            {
                "load_in_4bit": False,
                "load_in_8bit": True,
                "bnb_config_kwargs": {"bnb_4bit_quant_type": "fp4"},
            },
            "asks for nothing with load_in_8bit",
        ),
        (
            {"load_in_4bit": False, "load_in_8bit": True, "llama4_linearized_experts": True},
            "held in 4 bits only",
        ),
    ],
)
def test_what_bitsandbytes_is_not_asked(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        QuantizedBaseConfig.model_validate({"load_in_4bit": True, **settings})
    QuantizedBaseConfig(
        load_in_4bit=True, bnb_4bit_quant_type="fp4", bnb_config_kwargs={"bnb_4bit_quant_type": "fp4"}
    )
