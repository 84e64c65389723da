"""A Llama 4 that stores its experts as linear modules is read as transformers stores it."""

import json
from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from safetensors.torch import load_file, save_file
from support.llama4 import linearize, make_llama4
from support.tiny_model import Heard, make_model, workspace
from transformers import AutoModelForCausalLM

from tunemill.stages.artifacts import Tokenizer
from tunemill.stages.errors import SettingError, SourceError
from tunemill.stages.models.base_model.body import base_model
from tunemill.stages.models.base_model.config import BaseModelConfig

NAMES = [f"model.layers.1.feed_forward.experts.{name}" for name in ("gate_up_proj", "down_proj")]


def read(source: Path, folder: Path, *, linearized: bool = True) -> Path:
    out = workspace(folder)
    config = BaseModelConfig(base_model=str(source), llama4_linearized_experts=linearized, adapter="qlora")
    assert not list(config.faults())
    base_model(config, tokenizer=Tokenizer(source), upstream=None, out=out, report=Heard().report)
    return out.data


@pytest.mark.parametrize("sees", [False, True])
def test_plain(tmp_path: Path, sees: bool) -> None:
    stock = make_llama4(tmp_path / "stock")
    data = read(linearize(stock, tmp_path / "linear", sees=sees), tmp_path / "out")
    expected, found = (load_file(folder / "model.safetensors") for folder in (stock, data))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    assert json.loads((data / "config.json").read_text())["architectures"] == ["Llama4ForCausalLM"]
    again = read(stock, tmp_path / "as it is")
    assert torch.equal(load_file(again / "model.safetensors")[NAMES[0]], expected[NAMES[0]])


def test_in_4_bits(tmp_path: Path) -> None:
    stock = make_llama4(tmp_path / "stock")
    data = read(linearize(stock, tmp_path / "linear", in_4_bits=True), tmp_path / "out")
    expected, found = (load_file(folder / "model.safetensors") for folder in (stock, data))
    assert "quantization_config" not in json.loads((data / "config.json").read_text())
    weight = expected[NAMES[1]][0].T.contiguous()
    packed = quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
    assert torch.equal(found[NAMES[1]][0], dequantize_4bit(*packed).T)
    assert found[NAMES[0]].dtype == torch.bfloat16 and found[NAMES[0]].shape == expected[NAMES[0]].shape
    error = (found[NAMES[0]] - expected[NAMES[0]]).float().norm() / expected[NAMES[0]].float().norm()
    assert 0.05 < float(error) < 0.15
    assert AutoModelForCausalLM.from_pretrained(data).num_parameters() > 0


def test_what_is_refused(tmp_path: Path) -> None:
    source = linearize(make_llama4(tmp_path / "stock"), tmp_path / "linear")
    with pytest.raises(SourceError, match=r"experts\.down_projs\.0\.weight"):
        read(source, tmp_path / "without the key", linearized=False)
    tensors = load_file(source / "model.safetensors")
    del tensors["model.layers.1.feed_forward.experts.up_projs.1.weight"]
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SourceError, match=r"up_proj of expert 1 in .* and there are 2 experts"):
        read(source, tmp_path / "incomplete")
    llama = make_model(tmp_path / "llama")
    config = BaseModelConfig(base_model=str(llama), llama4_linearized_experts=True)
    assert ["this model is of type llama" in fault.reason for fault in config.faults()] == [True]
    out = workspace(tmp_path / "out of llama")
    with pytest.raises(SettingError, match="this model is of type llama"):
        base_model(config, tokenizer=Tokenizer(llama), upstream=None, out=out, report=Heard().report)
