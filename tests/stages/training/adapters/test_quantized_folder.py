"""A model folder that came quantized by bitsandbytes: adapters are trained on it, evaluated and merged."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from stages.training.adapters.adapted import LINEAR, llama, merged, train
from support.quantized import quantized
from support.tiny_model import Heard, folder_bytes, workspace
from support.variants import first_in_ci
from transformers import AutoModelForCausalLM

from tunemill.stages.artifacts import BaseModel, Tokenizer
from tunemill.stages.errors import SettingError
from tunemill.stages.models.base_model.body import base_model
from tunemill.stages.models.base_model.config import BaseModelConfig
from tunemill.stages.models.loading_body import is_quantized, load_causal_lm

IDS = torch.arange(3, 60).reshape(3, 19)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits.float()


def base_of(folder: Path, source: Path, **settings: Any) -> BaseModel:
    out = workspace(folder)
    config = BaseModelConfig(base_model=str(source), adapter="qlora", **settings)
    base_model(config, tokenizer=Tokenizer(source), upstream=None, out=out, report=Heard().report)
    return BaseModel(out.data)


@pytest.mark.slow
@pytest.mark.parametrize("bits", first_in_ci("load_in_4bit", "load_in_8bit"))
def test_adapters_are_trained_and_merged(tmp_path: Path, bits: str) -> None:
    source = quantized(tmp_path / "source", llama(tmp_path / "full", dtype=torch.bfloat16), **{bits: True})[0]
    config = BaseModelConfig(base_model=str(source.path), adapter="lora")
    assert not list(config.faults())
    base = base_of(tmp_path / "base", source.path)
    assert (base.path / "model.safetensors").read_bytes() == (source.path / "model.safetensors").read_bytes()
    # Asked to be quantized it stays as it is.
    frozen, heard = quantized(tmp_path / "frozen", base, **{bits: True})
    assert "quantized already" in heard.of("log")[0]["message"]
    assert folder_bytes(frozen.path) == folder_bytes(base.path)
    adapter, trained = train(tmp_path / "trained", base, steps=30, **LINEAR)
    assert trained.steps("loss")[30] < 0.5 * trained.steps("loss")[1]
    data, heard = merged(tmp_path / "merged", base, adapter)
    assert not is_quantized(data) and heard.summary["changed_tensors"] == 14
    assert {t.dtype for t in AutoModelForCausalLM.from_pretrained(data).state_dict().values()} == {
        torch.bfloat16
    }
    expected = logits(PeftModel.from_pretrained(load_causal_lm(base.path, dtype=torch.float32), adapter.path))
    found = logits(AutoModelForCausalLM.from_pretrained(data, dtype=torch.float32))
    assert float((found - expected).abs().max()) < 0.1 * float(expected.abs().max())
    other = "load_in_8bit" if bits == "load_in_4bit" else "load_in_4bit"
    with pytest.raises(
        SettingError, match=f"{other}: true, but the base is quantized already, in other bits"
    ):
        quantized(tmp_path / "other", base, **{other: True})


def test_what_it_cannot_be_used_for(tmp_path: Path) -> None:
    source = quantized(tmp_path / "source", llama(tmp_path / "full"))[0].path
    said = [fault.reason for fault in BaseModelConfig(base_model=str(source)).faults()]
    assert len(said) == 1 and "without adapter every weight is trained" in said[0]
    config = BaseModelConfig(base_model=str(source), adapter="lora", reinit_weights=True)
    assert ["reinit_weights cannot change them" in fault.reason for fault in config.faults()] == [True]
    base = base_of(tmp_path / "base", source)
    with pytest.raises(SettingError, match="adapter: unset, so every weight would be trained"):
        train(tmp_path / "full training", base, adapter=None, lora_r=None, lora_alpha=None)
    path = source / "config.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "vocab_size": 100}))
    with pytest.raises(SettingError, match=r"can neither get .* embedding rows, where there are 100"):
        base_of(tmp_path / "grown", source)
    path.write_text(json.dumps({**stored, "quantization_config": {"quant_method": "hqq", "bits": 4}}))
    said = [fault.reason for fault in BaseModelConfig(base_model=str(source), adapter="lora").faults()]
    assert len(said) == 1 and "already quantized, by hqq" in said[0]
