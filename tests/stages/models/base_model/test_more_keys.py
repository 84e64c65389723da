"""Keys that change what the base model's folder holds, or refuse to."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from support.tiny_model import Heard, make_model, workspace
from support.tiny_tokenizer import make_tokenizer
from transformers import AutoTokenizer

from tunemill.stages.artifacts import FetchedModel, Tokenizer
from tunemill.stages.errors import SettingError
from tunemill.stages.models.base_model.body import base_model
from tunemill.stages.models.base_model.config import BaseModelConfig


def run(tmp_path: Path, source: Path, **settings: Any) -> Path:
    out = workspace(tmp_path / "out")
    config = BaseModelConfig(base_model=str(source), **settings)
    tokenizer = Tokenizer(make_tokenizer(tmp_path / "tokenizer"))
    base_model(config, tokenizer=tokenizer, upstream=None, out=out, report=Heard().report)
    return out.data


def test_embeddings_shrink_to_the_tokenizer_where_asked(tmp_path: Path) -> None:
    source = make_model(tmp_path / "source", vocab_size=500)
    name = "model.embed_tokens.weight"
    before = load_file(source / "model.safetensors")[name]
    assert load_file(run(tmp_path / "kept", source) / "model.safetensors")[name].shape[0] == 500
    data = run(tmp_path / "cut", source, shrink_embeddings=True)
    tokens = len(AutoTokenizer.from_pretrained(data))
    assert torch.equal(load_file(data / "model.safetensors")[name], before[:tokens])
    assert json.loads((data / "config.json").read_text())["vocab_size"] == tokens
    padded = run(tmp_path / "32", source, shrink_embeddings=True, resize_token_embeddings_to_32x=True)
    assert load_file(padded / "model.safetensors")[name].shape[0] == 416


def test_arguments_of_loading_are_keys_of_the_config(tmp_path: Path) -> None:
    source = make_model(tmp_path / "source")
    data = run(tmp_path, source, overrides_of_model_kwargs={"attention_dropout": 0.25})
    assert json.loads((data / "config.json").read_text())["attention_dropout"] == 0.25


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"overrides_of_model_kwargs": {"torch_dtype": "x"}}, "torch_dtype is set by bf16, fp16 or float32"),
        ({"overrides_of_model_kwargs": {"device_map": "x"}}, "device_map is set by the machine"),
        (
            {"overrides_of_model_kwargs": {"a": 1}, "overrides_of_model_config": {"a": 2}},
            "both set a. Keep one",
        ),
    ],
)
def test_arguments_with_a_key_of_their_own_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        BaseModelConfig(base_model="x", **settings)


def test_the_class_of_the_config_is_the_one_that_the_folder_has(tmp_path: Path) -> None:
    source = make_model(tmp_path / "source")
    run(tmp_path / "same", source, cls_model_config="LlamaConfig")
    with pytest.raises(SettingError, match="is read as LlamaConfig"):
        run(tmp_path / "other", source, cls_model_config="Gemma3TextConfig")


def test_the_config_of_another_folder(tmp_path: Path) -> None:
    source = make_model(tmp_path / "source")
    other = make_model(tmp_path / "other", rms_norm_eps=0.5, seed=1)
    data = run(tmp_path, source, base_model_config=str(other))
    assert json.loads((data / "config.json").read_text())["rms_norm_eps"] == 0.5
    name = "model.layers.0.mlp.up_proj.weight"
    stored = load_file(source / "model.safetensors")[name]
    assert torch.equal(load_file(data / "model.safetensors")[name], stored)
    more = make_model(tmp_path / "more", num_hidden_layers=3)
    with pytest.raises(SettingError, match=r"missing from the files, such as model\.layers\.2"):
        run(tmp_path / "wrong", source, base_model_config=str(more))
    empty = tmp_path / "empty"
    empty.mkdir()
    faults = BaseModelConfig(base_model_config=str(empty)).faults()
    assert ["no config.json in it" in fault.reason for fault in faults] == [True]


@pytest.mark.parametrize("from_the_hub", [False, True])
def test_the_config_of_another_model_beside_one_of_another_node(tmp_path: Path, from_the_hub: bool) -> None:
    source, other = make_model(tmp_path / "source"), make_model(tmp_path / "other", rms_norm_eps=0.5)
    out, given = workspace(tmp_path / "out"), None if from_the_hub else str(other)
    base_model(
        BaseModelConfig(base_model_config=given),
        tokenizer=Tokenizer(source),
        upstream=FetchedModel(source),
        out=out,
        report=Heard().report,
        config_files=FetchedModel(other) if from_the_hub else None,
    )
    assert json.loads((out.data / "config.json").read_text())["rms_norm_eps"] == 0.5
