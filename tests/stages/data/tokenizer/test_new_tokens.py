"""New special tokens beside an adapter that trains no embeddings are refused, before anything runs."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.project import make_project
from support.tiny_model import Heard, workspace
from support.tiny_tokenizer import make_tokenizer

from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.looks import everything
from tunemill.stages.data.tokenizer.body import tokenizer
from tunemill.stages.data.tokenizer.config import TokenizerConfig
from tunemill.stages.errors import SettingError

NEW: list[dict[str, Any]] = [
    {"eos_token": "<new>"},
    {"bos_token": "<new>"},
    {"additional_special_tokens": ["<new>"]},
]
TRAINED: list[dict[str, Any]] = [
    {"lora_modules_to_save": ["embed_tokens", "lm_head"]},
    {"peft_trainable_token_indices": [3]},
    {"adapter": None},
]


@pytest.mark.parametrize("special", NEW, ids=str)
def test_check_refuses_them(tmp_path: Path, special: dict[str, Any]) -> None:
    project = make_project(tmp_path / "project", special_tokens=special)
    with pytest.raises(ConfigError, match=r"special_tokens: .*<new>: not in the tokenizer"):
        load_pipeline(project.yaml, look_at=everything)


@pytest.mark.parametrize("beside", TRAINED, ids=str)
def test_where_they_are_trained_they_are_taken(tmp_path: Path, beside: dict[str, Any]) -> None:
    project = make_project(tmp_path / "project", special_tokens={"eos_token": "<new>"}, **beside)
    load_pipeline(project.yaml, look_at=everything)


@pytest.mark.parametrize("special", [{"pad_token": "<new>"}, {"eos_token": "{eos}"}, {}], ids=str)
def test_padding_and_tokens_that_there_are_need_no_training(tmp_path: Path, special: dict[str, Any]) -> None:
    folder = make_tokenizer(tmp_path / "tokenizer")

    known = min(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
    given = {role: known if text == "{eos}" else text for role, text in special.items()}
    config = TokenizerConfig(base_model=str(folder), special_tokens=given, adapter="lora")
    assert not list(config.faults())
    tokenizer(config, None, workspace(tmp_path / "out"), Heard().report)


def test_the_stage_refuses_what_check_could_not_see(tmp_path: Path) -> None:
    folder = make_tokenizer(tmp_path / "tokenizer")
    config = TokenizerConfig(base_model=str(folder), special_tokens={"eos_token": "<new>"}, adapter="qlora")
    assert [fault.key for fault in config.faults()] == ["special_tokens"]
    with pytest.raises(SettingError, match="<new>: not in the tokenizer"):
        tokenizer(config, None, workspace(tmp_path / "out"), Heard().report)


def test_a_tokenizer_of_a_full_training_is_no_answer_to_an_adapters_question() -> None:
    def key_of(**given: Any) -> dict[str, Any]:
        return TokenizerConfig(base_model="m", **given).semantic()

    new = {"special_tokens": {"eos_token": "<new>"}}
    assert key_of(**new, adapter="lora") != key_of(**new)
    assert key_of(**new, adapter="lora", lora_modules_to_save=["lm_head"]) == key_of(**new)
    assert key_of(adapter="lora") == key_of()
