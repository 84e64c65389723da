"""Schedulers that follow held-out rows: the rates of a real training, worked out by hand from its held-out losses."""

from pathlib import Path
from typing import Any

import pytest
from support.tiny_model import (
    Heard,
    evaluation_data,
    folder_bytes,
    make_model,
    random_rows,
    training_data,
    workspace,
)

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import UserError
from tunemill.stages.report import Report
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

# A rate that is too high: held-out loss falls, then rises.
SETTINGS: dict[str, Any] = {
    "learning_rate": 0.1, "micro_batch_size": 2, "num_epochs": 3, "logging_steps": 1, "save_strategy": "no",
    "eval_steps": 1,
}  # fmt: skip
PLATEAU = {
    "lr_scheduler": "reduce_lr_on_plateau",
    "lr_scheduler_kwargs": {"factor": 0.5, "patience": 1, "threshold": 0},
}
GREEDY = {
    "lr_scheduler": "greedy",
    "lr_scheduler_kwargs": {"factor": 0.5, "patience": 0, "threshold": 0, "min_lr": 0.04, "max_lr": 0.3},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("base") / "base")


def train(folder: Path, base: Path, report: Report, **settings: Any) -> Path:
    rows = training_data(folder / "rows", random_rows(8))
    held_out = evaluation_data(folder / "held_out", random_rows(6, seed=1))
    out = workspace(folder)
    sft(SftConfig(**{**SETTINGS, **settings}), Model(base), rows, held_out, out, report)
    return out.data


def halved_after_two_bad_ones(losses: dict[int, float]) -> dict[int, float]:
    """The rate of each step; with a patience of 1 the second evaluation in a row without a new best halves it."""
    rate, best, bad, found = 0.1, float("inf"), 0, {}
    for step, loss in losses.items():
        found[step] = rate
        bad = 0 if loss < best else bad + 1
        best = min(best, loss)
        if bad == 2:
            rate, bad = rate / 2, 0
    return found


def doubled_or_halved(losses: dict[int, float]) -> dict[int, float]:
    """The rate of each step: doubled by a new best and halved by anything else, within bounds."""
    rate, best, found = 0.1, float("inf"), {}
    for step, loss in losses.items():
        found[step] = rate
        rate = min(rate * 2, 0.3) if loss < best else max(rate / 2, 0.04)
        best = min(best, loss)
    return found


@pytest.mark.parametrize(
    ("settings", "by_hand"),
    [(PLATEAU, halved_after_two_bad_ones), pytest.param(GREEDY, doubled_or_halved, marks=pytest.mark.slow)],
    ids=["plateau", "greedy"],
)
def test_the_rates_follow_the_held_out_loss(tmp_path: Path, base: Path, settings: Any, by_hand: Any) -> None:
    heard = Heard()
    train(tmp_path, base, heard.report, **settings)
    expected = by_hand(heard.steps("eval_loss"))
    assert heard.steps("learning_rate") == pytest.approx(expected)
    assert len(set(expected.values())) > 2, "the rate moves, or nothing is shown"
    moves = [event["message"] for event in heard.of("log") if "the learning rate is" in event["message"]]
    assert len(moves) >= len(set(expected.values())) - 1


@pytest.mark.slow
@pytest.mark.parametrize("settings", [PLATEAU, GREEDY], ids=["plateau", "greedy"])
def test_it_goes_on_exactly_from_between_two_evaluations(tmp_path: Path, base: Path, settings: Any) -> None:
    # 4 steps an epoch. Evaluated at 2, 4, 6, 8, 10, 12, saved at 3, 6, 9: checkpoint 9 lies between two evaluations.
    rhythm = {"eval_steps": 2, "save_strategy": None, "save_steps": 3}
    more = {**settings["lr_scheduler_kwargs"], "patience": 0}

    class StoppedError(Exception):
        pass

    def interrupt(event: dict[str, Any]) -> None:
        if event["type"] == "step" and event["step"] == 10 and "loss" in event["metrics"]:
            raise StoppedError

    case = {**settings, **rhythm, "lr_scheduler_kwargs": more}
    with pytest.raises(StoppedError):
        train(tmp_path / "killed", base, Report(interrupt), **case)
    resumed, whole = Heard(), Heard()
    found = train(tmp_path / "killed", base, resumed.report, **case)
    expected = train(tmp_path / "whole", base, whole.report, **case)
    rates = whole.steps("learning_rate")
    assert min(resumed.steps("loss")) == 10 and rates[10] != 0.1
    assert resumed.steps("learning_rate") == {step: rates[step] for step in (10, 11, 12)}
    assert folder_bytes(found) == folder_bytes(expected)


def test_no_evaluation_in_time_is_refused(tmp_path: Path, base: Path) -> None:
    with pytest.raises(UserError, match="eval_steps"):
        train(tmp_path, base, Heard().report, **PLATEAU, max_steps=1, num_epochs=1, eval_steps=100)
