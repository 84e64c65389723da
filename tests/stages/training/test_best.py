"""Held-out rows decide where early stopping or the best model is asked for: then they are part of the key."""

from pathlib import Path
from typing import Any

import pytest
from support.configs import HELD_OUT, ORPO, SFT, load, problems
from support.tiny_model import (
    Heard,
    evaluation_data,
    folder_bytes,
    make_model,
    random_rows,
    training_data,
    workspace,
)

from tunemill.pipelines.graph.keys import looked_at_by, upstream_of
from tunemill.stages.artifacts import Model
from tunemill.stages.errors import UserError
from tunemill.stages.report import Report
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

# A constant rate that is far too high: held-out loss falls, then rises.
SETTINGS: dict[str, Any] = {
    "learning_rate": 1e-2, "lr_scheduler": "constant", "warmup_steps": 0, "micro_batch_size": 2,
    "num_epochs": 3, "save_strategy": "no", "eval_steps": 1,
}  # fmt: skip


def run(folder: Path, base: Path, **settings: Any) -> tuple[Path, Heard]:
    out, heard = workspace(folder), Heard()
    sft(
        SftConfig(**{**SETTINGS, **settings}),
        Model(base),
        training_data(folder / "rows", random_rows(8)),
        evaluation_data(folder / "held_out", random_rows(6, seed=1)),
        out,
        heard.report,
    )
    return out.data, heard


def best_step(heard: Heard) -> int:
    losses = heard.steps("eval_loss")
    return min(losses, key=lambda step: losses[step])


LORA: dict[str, Any] = {"adapter": "lora", "lora_r": 4, "lora_alpha": 32, "lora_target_linear": True}


@pytest.mark.parametrize("kind", [{}, pytest.param(LORA, marks=pytest.mark.slow)], ids=["full", "lora"])
def test_the_result_has_the_weights_of_the_best_step(tmp_path: Path, kind: dict[str, Any]) -> None:
    base = make_model(tmp_path / "base")
    asked = {"save_strategy": "best"} if kind else {"load_best_model_at_end": True}
    found, heard = run(tmp_path / "best", base, **kind, **asked)
    step = best_step(heard)
    assert 1 < step < 12, "neither the first step nor the last: else nothing is shown"
    assert heard.summary["best_step"] == step and heard.summary["steps"] == 12
    assert heard.summary["best_eval_loss"] == heard.steps("eval_loss")[step]
    expected, _ = run(tmp_path / "short", base, max_steps=step, **kind)
    assert folder_bytes(found) == folder_bytes(expected)


@pytest.mark.slow
def test_it_stops_when_nothing_gets_better(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    found, heard = run(tmp_path / "early", base, early_stopping_patience=2, learning_rate=0.1)
    step = best_step(heard)
    assert heard.summary["stopped_early"] is True
    assert heard.summary["best_step"] == step
    assert heard.summary["steps"] == step + 2 < 12
    expected, _ = run(tmp_path / "short", base, max_steps=step + 2, learning_rate=0.1)
    assert folder_bytes(found) == folder_bytes(expected), "the last step's weights, not the best's"


@pytest.mark.slow
def test_more_can_be_better(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    _, heard = run(tmp_path / "more", base, load_best_model_at_end=True, greater_is_better=True, max_steps=6)
    losses = heard.steps("eval_loss")
    assert heard.summary["best_step"] == max(losses, key=lambda step: losses[step])


@pytest.mark.slow
def test_a_killed_run_decides_as_one_that_was_not(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    settings = {
        "load_best_model_at_end": True,
        "early_stopping_patience": 3,
        "save_strategy": None,
        "save_steps": 1,
    }
    expected, whole = run(tmp_path / "whole", base, **settings)
    last = int(whole.summary["steps"])

    class KilledError(Exception):
        pass

    for kill_at in (last - 2,):
        folder = tmp_path / f"killed-{kill_at}"
        out, heard = workspace(folder), Heard()

        def emit(event: dict[str, Any], heard: Heard = heard, kill_at: int = kill_at) -> None:
            heard.events.append(event)
            if event["type"] == "step" and event["step"] == kill_at and "eval_loss" in event["metrics"]:
                raise KilledError

        data = training_data(folder / "rows", random_rows(8))
        held_out = evaluation_data(folder / "held_out", random_rows(6, seed=1))
        with pytest.raises(KilledError):
            sft(SftConfig(**{**SETTINGS, **settings}), Model(base), data, held_out, out, Report(emit))
        found, resumed = run(folder, base, **settings)
        assert folder_bytes(found) == folder_bytes(expected)
        for name in ("best_step", "best_eval_loss", "steps", "stopped_early"):
            assert resumed.summary[name] == whole.summary[name]


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="eval_loss"):
        SftConfig(**SETTINGS, load_best_model_at_end=True, metric_for_best_model="eval_acuracy")


def test_no_evaluation_in_time_is_refused(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    with pytest.raises(UserError, match="eval_steps"):
        run(tmp_path / "out", base, load_best_model_at_end=True, eval_steps=100)


DECIDES: list[dict[str, Any]] = [
    {"early_stopping_patience": 3},
    {"load_best_model_at_end": True},
    {"save_strategy": "best"},
    {"lr_scheduler": "reduce_lr_on_plateau"},
    {"lr_scheduler": "greedy", "lr_scheduler_kwargs": {"min_lr": 0}},
]


@pytest.mark.parametrize("keys", DECIDES)
def test_held_out_rows_enter_the_key_exactly_then(tmp_path: Path, keys: dict[str, Any]) -> None:
    monitored = load(tmp_path, {**SFT, **HELD_OUT, "eval_steps": 5}).node("trained")
    assert upstream_of(monitored) == ["base_model", "training_data"]
    assert looked_at_by(monitored) == ["evaluation_data"]
    assert "eval_steps" not in monitored.config.semantic()
    decided = load(tmp_path, {**SFT, **HELD_OUT, "eval_steps": 5, **keys}).node("trained")
    assert upstream_of(decided) == ["base_model", "training_data", "evaluation_data"]
    assert looked_at_by(decided) == []
    semantic = decided.config.semantic()
    assert semantic.items() >= {"eval_steps": 5.0, **keys}.items()
    # Without a word on when, after each epoch.
    assert "evaluation_data" in upstream_of(load(tmp_path, {**SFT, **HELD_OUT, **keys}).node("trained"))


def test_pairs_decide_too(tmp_path: Path) -> None:
    held_out = [{"path": "held_out.jsonl", "type": "chatml.intel"}]
    config = {**ORPO, "test_datasets": held_out, "early_stopping_patience": 3,
              "metric_for_best_model": "rewards/accuracies"}  # fmt: skip
    node = load(tmp_path, config).node("trained")
    assert "evaluation_data" in upstream_of(node)
    assert node.config.more_is_better  # type: ignore[attr-defined]


@pytest.mark.parametrize("keys", DECIDES)
def test_without_held_out_rows_it_is_refused(tmp_path: Path, keys: dict[str, Any]) -> None:
    (problem,) = problems(tmp_path, {**SFT, **keys})
    assert problem.path == next(iter(keys)) and "val_set_size" in problem.message
    (problem,) = problems(tmp_path, {**SFT, **HELD_OUT, **keys, "eval_strategy": "no"})
    assert problem.path == "eval_strategy"


def test_nothing_to_compare_is_noted(tmp_path: Path) -> None:
    pipeline = load(
        tmp_path, {**SFT, **HELD_OUT, "metric_for_best_model": "eval_loss", "greater_is_better": False}
    )
    assert {note.path for note in pipeline.notes} == {"metric_for_best_model", "greater_is_better"}
