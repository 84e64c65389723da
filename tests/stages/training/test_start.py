"""`resume_from_checkpoint`: another run's checkpoint is a start, and its contents are part of the key."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.configs import SFT, load
from support.tiny_model import Heard, folder_bytes, make_model, random_rows, training_data, workspace
from support.variants import first_in_ci

from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.looks import everything
from tunemill.stages.artifacts import Model
from tunemill.stages.errors import SettingError
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

SETTINGS: dict[str, Any] = {"learning_rate": 1e-2, "max_steps": 6, "save_steps": 4, "logging_steps": 1}
LORA: dict[str, Any] = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_linear": True}


def run(folder: Path, base: Path, **settings: Any) -> Heard:
    heard = Heard()
    data = training_data(folder / "rows", random_rows(8))
    sft(SftConfig(**{**SETTINGS, **settings}), Model(base), data, None, workspace(folder), heard.report)
    return heard


@pytest.mark.slow
@pytest.mark.parametrize("kind", first_in_ci({}, LORA), ids=["full", "lora"])
def test_it_goes_on_where_the_other_run_was(tmp_path: Path, kind: dict[str, Any]) -> None:
    base = make_model(tmp_path / "base")
    run(tmp_path / "other", base, **kind)
    start = shutil.copytree(tmp_path / "other/checkpoints/checkpoint-4", tmp_path / "checkpoint-4")
    heard = run(tmp_path / "mine", base, resume_from_checkpoint=str(start), **kind)
    assert min(heard.steps("loss")) == 5
    assert heard.summary["steps_taken_before"] == 4
    assert folder_bytes(tmp_path / "mine/data") == folder_bytes(tmp_path / "other/data")
    with pytest.raises(SettingError, match="has taken 4 steps, and this training has 3"):
        run(tmp_path / "short", base, resume_from_checkpoint=str(start), max_steps=3, save_steps=1, **kind)


def test_its_contents_are_a_source_of_the_key(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-4").mkdir()
    (tmp_path / "checkpoint-4/trainer_state.json").write_text("{}")
    node = load(tmp_path, {**SFT, "resume_from_checkpoint": "checkpoint-4"}).node("trained")
    assert node.sources == {"resume_from_checkpoint": [str(tmp_path / "checkpoint-4")]}
    with pytest.raises(ValueError, match="lacks weights as safetensors"):
        load_pipeline(tmp_path / "x.yml", look_at=everything)
