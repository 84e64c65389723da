"""Keys of Axolotl's examples that ask for nothing here, or for what another key says."""

from pathlib import Path
from typing import Any

import pytest
from support.configs import LORA, SFT, load, problems

KERNELS = "axolotl.integrations.kernels.KernelsPlugin"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_kernels", True),
        ("use_scattermoe", True),
        ("use_sonicmoe", True),
        ("liger_rms_norm_gated", True),
        ("freeze_mm_modules", True),
        ("gptq_disable_exllama", True),
        ("nvfp4_merge_aware", True),
        ("dsv4_fp4_grouped_mode", "nvfp4"),
        ("experts_implementation", "scattermoe"),
        ("plugins", [KERNELS]),
    ],
)
def test_what_asks_for_nothing_is_noted(tmp_path: Path, key: str, value: Any) -> None:
    notes = load(tmp_path, {**SFT, key: value}).notes
    assert [(note.path.partition("[")[0], note.kind) for note in notes] == [(key, "idle")]


def test_a_plugin_of_kernels_beside_liger_is_no_note(tmp_path: Path) -> None:
    plugins = ["axolotl.integrations.liger.LigerPlugin", KERNELS]
    notes = load(tmp_path, {**SFT, "plugins": plugins, "liger_rope": True}).notes
    assert "plugins" not in {note.path for note in notes}


@pytest.mark.parametrize(
    ("plugin", "said"),
    [
        ("axolotl.integrations.diffusion.DiffusionPlugin", "a method that is not supported yet"),
    ],
)
def test_a_plugin_that_would_train_something_else_is_refused(tmp_path: Path, plugin: str, said: str) -> None:
    (problem,) = problems(tmp_path, {**SFT, "plugins": [plugin]})
    assert problem.path == "plugins" and said in problem.message


def test_an_adapter_without_targets_goes_to_every_linear_module(tmp_path: Path) -> None:
    pipeline = load(tmp_path, {**SFT, "adapter": "lora", "lora_r": 8, "lora_alpha": 16})
    (trained,) = (node for node in pipeline.nodes if node.name == "trained")
    assert trained.config.takes_every_linear


def test_loftq_is_read_from_its_group_alone(tmp_path: Path) -> None:
    pipeline = load(tmp_path, {**SFT, **LORA, "peft": {"loftq_config": {"loftq_bits": 4}}})
    (trained,) = (node for node in pipeline.nodes if node.name == "trained")
    assert trained.config.rounds_base == 4 and not pipeline.notes
    (problem,) = problems(tmp_path, {**SFT, **LORA, "peft": {"loftq_config": {"loftq_iter": 2}}})
    assert problem.path == "peft.loftq_config.loftq_iter"


def test_tokens_with_roles_are_special_tokens(tmp_path: Path) -> None:
    roles = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    pipeline = load(tmp_path, {**SFT, "tokens": roles})
    (tokenizer,) = (node for node in pipeline.nodes if node.name == "tokenizer")
    assert tokenizer.config.special_tokens.model_dump(exclude_none=True) == roles
    assert tokenizer.config.tokens == []
    (note,) = pipeline.notes
    assert note.kind == "renamed" and "read as special_tokens" in note.message


def test_tokens_with_roles_beside_other_special_tokens_are_refused(tmp_path: Path) -> None:
    config = {**SFT, "tokens": {"eos_token": "a"}, "special_tokens": {"eos_token": "b"}}
    assert [problem.kind for problem in problems(tmp_path, config)] == ["conflict"]


def test_nobody_evaluated_still_lets_held_out_rows_be_watched(tmp_path: Path) -> None:
    config = {**SFT, **LORA, "val_set_size": 4, "eval_steps": 2, "pipeline": {"evaluate": []}}
    pipeline = load(tmp_path, config)
    (trained,) = (node for node in pipeline.nodes if node.name == "trained")
    assert trained.inputs["evaluation_data"] == ("evaluation_data",)
    assert not pipeline.notes and not any(node.name.startswith("evaluation_of") for node in pipeline.nodes)


def test_the_config_of_a_model_of_the_hub_is_a_node(tmp_path: Path) -> None:
    pipeline = load(tmp_path, {**SFT, "base_model_config": "owner/other", "trust_remote_code": True})
    node = pipeline.node("base_model")
    assert node.inputs["config_files"] == ("config_files",)
    assert node.inputs["upstream"] == ("model_files",)
    found = pipeline.node("config_files").config
    assert (found.repository, found.needed) == ("hf://models/owner/other", "config")
    assert node.config.base_model_config is None
    assert any("beside base_model_config will run" in note.message for note in pipeline.notes)
