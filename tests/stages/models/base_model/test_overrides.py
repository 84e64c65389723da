"""Overrides of config.json, above all of the rotation of positions."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from support.tiny_model import Heard, make_model, workspace
from support.tiny_tokenizer import make_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, Gemma3TextConfig

from tunemill.stages.artifacts import Tokenizer
from tunemill.stages.errors import SettingError
from tunemill.stages.models.base_model.body import base_model
from tunemill.stages.models.base_model.config import BaseModelConfig
from tunemill.stages.models.base_model.overrides_body import overridden_config

LINEAR = {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model", rope_parameters={"rope_type": "default", "rope_theta": 5000.0})


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("kind", ["type", "rope_type"])
def test_a_scaling_in_either_spelling_keeps_theta(folder: Path, tmp_path: Path, key: str, kind: str) -> None:
    config = BaseModelConfig(
        base_model=str(folder), overrides_of_model_config={key: {kind: "linear", "factor": 2.0}}
    )
    out = workspace(tmp_path / "out")
    tokenizer = Tokenizer(make_tokenizer(tmp_path / "tokenizer"))
    base_model(config, tokenizer=tokenizer, upstream=None, out=out, report=Heard().report)
    model = AutoModelForCausalLM.from_pretrained(out.data)
    assert model.config.rope_parameters == LINEAR
    plain = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.allclose(model.model.rotary_emb.inv_freq * 2, plain.model.rotary_emb.inv_freq)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"rope_theta": 7.0}, {"rope_type": "default", "rope_theta": 7.0}),
        ({"rope_scaling": None}, {"rope_type": "default", "rope_theta": 5000.0}),
        ({"rope_scaling": {"rope_theta": 7.0}}, {"rope_type": "default", "rope_theta": 7.0}),
        (
            {"rope_scaling": {"type": "yarn", "factor": 4.0}, "max_position_embeddings": 1024},
            {"rope_type": "yarn", "factor": 4.0, "rope_theta": 5000.0, "original_max_position_embeddings": 256},
        ),
    ],
)  # fmt: skip
def test_what_is_not_given_stays(folder: Path, overrides: dict[str, Any], expected: dict[str, Any]) -> None:
    assert overridden_config(folder, overrides).rope_parameters == expected


def test_of_several_rotations_the_full_attention_is_meant(tmp_path: Path) -> None:
    Gemma3TextConfig(num_hidden_layers=1).save_pretrained(tmp_path)
    before = AutoConfig.from_pretrained(tmp_path).rope_parameters
    scaled = overridden_config(tmp_path, {"rope_scaling": {"type": "linear", "factor": 8.0}}).rope_parameters
    assert scaled["sliding_attention"] == before["sliding_attention"]
    assert scaled["full_attention"] == {**before["full_attention"], "rope_type": "linear", "factor": 8.0}
    both = {"sliding_attention": {"rope_theta": 9.0}}
    assert overridden_config(tmp_path, {"rope_parameters": both}).rope_parameters == {
        **before,
        "sliding_attention": {"rope_type": "default", "rope_theta": 9.0},
    }


@pytest.mark.parametrize(
    ("rope", "said"),
    [
        ({"type": "linear"}, "factor"),
        ({"type": "liner", "factor": 2.0}, "rope_type liner: not one of default, dynamic, linear"),
        ({"type": "linear", "factor": "2x"}, "factor 2x: must be a number"),
    ],
)
def test_a_rotation_that_there_is_not(folder: Path, rope: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        overridden_config(folder, {"rope_scaling": rope})


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"rope_scaling": {}, "rope_parameters": {}}, "two names of one setting"),
        ({"rope_scaling": 2.0}, "give a mapping"),
    ],
)
def test_check_refuses(overrides: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        BaseModelConfig(base_model="x", overrides_of_model_config=overrides)
