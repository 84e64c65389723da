"""Distillation as a training: its loss as supervised training's, packing, accumulation, resuming; and it learns."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.teachers import make_teacher, taught
from support.tiny_model import (
    Heard,
    folder_bytes,
    make_model,
    packs_of,
    random_rows,
    training_data,
    workspace,
)

from tunemill.stages.artifacts import Model, TeacherLogProbs, TrainingData
from tunemill.stages.report import Report
from tunemill.stages.training.distillation.body import distillation
from tunemill.stages.training.distillation.config import DistillationConfig
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

SGD: dict[str, Any] = {
    "optimizer": "sgd", "learning_rate": 0.1, "max_grad_norm": 0, "lr_scheduler": "constant", "logging_steps": 1,
    "save_strategy": "no",
}  # fmt: skip
ROWS = random_rows(8, longest=20)
BOTH = {"kd_alpha": 0.9, "kd_ce_alpha": 0.1, "kd_temperature": 2.0}


@pytest.fixture(autouse=True, scope="module")
def frozen_garbage() -> Iterator[None]:
    # Each training collects garbage twice, most of its time, unless the libraries are left out of that.
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("base") / "base", attention_dropout=0.1)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_teacher(tmp_path_factory.mktemp("teacher") / "teacher")


def distil(
    folder: Path, base: Path, data: TrainingData, said: TeacherLogProbs, report: Report, **settings: Any
) -> Path:
    """The folder of the student."""
    out = workspace(folder)
    distillation(DistillationConfig(**settings), Model(base), data, [said], None, out, report)
    return out.data


def losses(folder: Path, base: Path, data: TrainingData, said: TeacherLogProbs, **settings: Any) -> Heard:
    heard = Heard()
    distil(folder, base, data, said, heard.report, **{**SGD, **settings})
    return heard


def test_cross_entropy_alone_is_supervised_training(tmp_path: Path, teacher: Path) -> None:
    base, data = make_model(tmp_path / "base"), training_data(tmp_path / "data", ROWS)
    said, expected, out = taught(tmp_path / "said", teacher, data), Heard(), workspace(tmp_path / "sft")
    settings = {**SGD, "micro_batch_size": 2, "gradient_accumulation_steps": 2, "num_epochs": 2}
    sft(SftConfig(**settings), Model(base), data, None, out, expected.report)
    found = losses(tmp_path / "kd", base, data, said, **settings, kd_alpha=0, kd_ce_alpha=1)
    assert found.steps("loss") == pytest.approx(expected.steps("loss"), abs=1e-5)
    assert found.steps("ce_loss") == pytest.approx(expected.steps("loss"), abs=1e-5)
    assert found.steps("grad_norm") == pytest.approx(expected.steps("grad_norm"), rel=1e-4)


def test_parts_are_weighed_and_shown(tmp_path: Path, base: Path, teacher: Path) -> None:
    data = training_data(tmp_path / "data", ROWS)
    found = losses(tmp_path / "kd", base, data, taught(tmp_path / "said", teacher, data), **BOTH, max_steps=3)
    loss, divergence, cross_entropy = (found.steps(name) for name in ("loss", "kd_loss", "ce_loss"))
    assert loss == pytest.approx({step: 0.9 * divergence[step] + 0.1 * cross_entropy[step] for step in loss})


def test_one_teacher_of_itself_has_nothing_to_say(tmp_path: Path) -> None:
    base, data = make_model(tmp_path / "base"), training_data(tmp_path / "data", ROWS)
    said = taught(tmp_path / "said", base, data)
    for beta in (0, 0.5, 1):
        found = losses(tmp_path / f"{beta}", base, data, said, kd_beta=beta, max_steps=1, kd_temperature=2)
        assert found.steps("kd_loss")[1] == pytest.approx(0, abs=1e-6)
        assert found.steps("grad_norm")[1] < 1e-3


@pytest.mark.parametrize("settings", [{"micro_batch_size": 8}, {"gradient_accumulation_steps": 8}])
def test_how_a_step_is_cut_and_packed_changes_nothing(
    tmp_path: Path, teacher: Path, settings: dict[str, Any]
) -> None:
    # No dropout: its masks would differ with the shapes.
    base, data = make_model(tmp_path / "base"), training_data(tmp_path / "data", ROWS)
    given = {**BOTH, "max_steps": 2, "num_epochs": 3, "kd_beta": 0.5}
    said = taught(tmp_path / "said", teacher, data)
    found = losses(tmp_path / "kd", base, data, said, **given, **settings)
    packed = training_data(tmp_path / "packed", ROWS, packs_of(8, 2))
    expected = losses(
        tmp_path / "packs", base, packed, taught(tmp_path / "said packed", teacher, packed), **given,
        sample_packing=True, sequence_len=48, micro_batch_size=2, gradient_accumulation_steps=2,
    )  # fmt: skip
    for name in ("loss", "kd_loss", "ce_loss"):
        assert found.steps(name) == pytest.approx(expected.steps(name), abs=2e-5), name


def test_goes_on_exactly_in_a_later_epoch(tmp_path: Path, base: Path, teacher: Path) -> None:
    data = training_data(tmp_path / "data", ROWS)
    said = taught(tmp_path / "said", teacher, data)
    settings = {
        **BOTH, "learning_rate": 1e-2, "micro_batch_size": 1, "gradient_accumulation_steps": 2, "num_epochs": 3,
        "save_steps": 3, "logging_steps": 1,
    }  # fmt: skip

    def interrupt(event: dict[str, Any]) -> None:
        if event["type"] == "step" and event["step"] == 8:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        distil(tmp_path / "resumed", base, data, said, Report(interrupt), **settings)
    resumed, whole = Heard(), Heard()
    found = distil(tmp_path / "resumed", base, data, said, resumed.report, **settings)
    expected = distil(tmp_path / "whole", base, data, said, whole.report, **settings)
    assert min(resumed.steps("loss")) == 7 and max(resumed.steps("loss")) == 12
    for name in ("loss", "kd_loss", "ce_loss"):
        assert resumed.steps(name) == {step: loss for step, loss in whole.steps(name).items() if step > 6}
    assert folder_bytes(found) == folder_bytes(expected)
