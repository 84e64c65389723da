"""Keys of several devices: each is checked, and a note says that one device trains."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.configs import SFT, load, problems

FSDP = {
    "fsdp": ["full_shard", "auto_wrap"],
    "fsdp_config": {"fsdp_version": 2, "fsdp_offload_params": False, "reshard_after_forward": True},
}
SIZES = {"dp_shard_size": 4, "context_parallel_size": 2, "tensor_parallel_size": 2, "expert_parallel_size": 8}


def notes(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    return {note.path: note.message for note in load(folder, config).notes}


@pytest.mark.parametrize("keys", [FSDP, SIZES, {"deepspeed": "deepspeed_configs/zero2.json"}])
def test_one_device_trains_and_a_note_says_so(tmp_path: Path, keys: dict[str, Any]) -> None:
    found = notes(tmp_path, {**SFT, **keys})
    assert set(found) == set(keys)
    assert all(text.startswith("asks for nothing: one device trains, so ") for text in found.values())


def test_they_are_no_part_of_the_key(tmp_path: Path) -> None:
    plain = load(tmp_path, SFT).node("trained").config.semantic()
    assert load(tmp_path, {**SFT, **FSDP, **SIZES}).node("trained").config.semantic() == plain


def test_a_size_of_one_needs_no_note(tmp_path: Path) -> None:
    assert notes(tmp_path, {**SFT, "tensor_parallel_size": 1, "dp_shard_size": 1}) == {}


def test_sharded_recomputation_says_what_to_write(tmp_path: Path) -> None:
    found = notes(tmp_path, {**SFT, "fsdp_config": {"activation_checkpointing": True}})
    assert "gradient_checkpointing: true" in found["fsdp_config"]


@pytest.mark.parametrize(
    ("keys", "path", "part"),
    [
        ({"fsdp_config": {"offload_parms": True}}, "fsdp_config.offload_parms", "unknown key"),
        ({"fsdp_config": {"sharding_strategy": "FULL"}}, "fsdp_config.sharding_strategy", "FULL_SHARD"),
        ({"accelerator_config": {"gradient_accumulation_kwargs": {"num_steps": 4}}},
         "accelerator_config.gradient_accumulation_kwargs.num_steps", "gradient_accumulation_steps: 4"),
        ({"tensor_parallel_size": 0}, "tensor_parallel_size", "above 0"),
        ({"deepspeed": {"optimizer": {"type": "SGD"}}}, "deepspeed", "optim_args"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_them_is_found(tmp_path: Path, keys: dict[str, Any], path: str, part: str) -> None:
    (problem,) = problems(tmp_path, {**SFT, **keys})
    assert problem.path == path
    assert part in problem.message or part in str(problem.suggestion)


def test_a_file_of_deepspeed_is_read_for_what_it_would_replace(tmp_path: Path) -> None:
    (tmp_path / "zero.json").write_text(json.dumps({"zero_optimization": {"stage": 3}}))
    assert set(notes(tmp_path, {**SFT, "deepspeed": "zero.json"})) == {"deepspeed"}
    (tmp_path / "zero.json").write_text(json.dumps({"scheduler": {"type": "WarmupLR"}}))
    (problem,) = problems(tmp_path, {**SFT, "deepspeed": "zero.json"})
    assert "lr_scheduler" in problem.message
