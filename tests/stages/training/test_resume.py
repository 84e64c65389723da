"""A run killed by SIGKILL and started again ends with the same bytes as one that was never interrupted."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from support.modules import load_module
from support.tiny_model import Heard, folder_bytes

SCRIPT = Path(__file__).with_name("killed_run.py")
TESTS = Path(__file__).parents[2]


@pytest.fixture
def killed_run() -> Any:
    module = load_module(SCRIPT)
    threads = torch.get_num_threads()
    yield module
    torch.set_num_threads(threads)


def kill(case: str, folder: Path, where: str) -> None:
    """Run the case in a child process until it kills itself."""
    paths = os.pathsep.join((str(TESTS), str(TESTS.parent)))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    child = subprocess.run(
        [sys.executable, str(SCRIPT), case, str(folder), where],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr


def compare(killed_run: ModuleType, case: str, tmp_path: Path, where: str, resumes_from: int) -> None:
    kill(case, tmp_path / "killed", where)
    resumed, whole = Heard(), Heard()
    data = killed_run.run(case, tmp_path / "killed", resumed.report)
    expected = killed_run.run(case, tmp_path / "whole", whole.report)
    logs = [event["message"] for event in resumed.of("log")]
    assert logs == [f"resuming from checkpoint-{resumes_from} of 20 steps"], where
    assert min(resumed.steps("loss")) == resumes_from + 1
    assert folder_bytes(data) == folder_bytes(expected), where
    later = {step: loss for step, loss in whole.steps("loss").items() if step > resumes_from}
    assert resumed.steps("loss") == later
    for figure in ("train_loss", "last_loss", "steps", "epochs"):
        assert resumed.summary[figure] == whole.summary[figure], figure
    curve = next(event for event in resumed.of("plot") if event["title"] == "Training loss")
    assert curve["x"] == list(range(1, 21))


@pytest.mark.slow
def test_killed_at_a_random_step_lora_packed_with_dropout(killed_run: ModuleType, tmp_path: Path) -> None:
    # Steps 7 to 20: the newest checkpoint lies in the middle of epoch 2 or later.
    step = random.SystemRandom().randint(7, 20)
    compare(killed_run, "lora", tmp_path, f"step-{step}", resumes_from=(step - 1) // 3 * 3)


@pytest.mark.slow
def test_killed_while_saving_full_unpacked(killed_run: ModuleType, tmp_path: Path) -> None:
    # Checkpoint 10 is torn; the run goes back to the one at the end of epoch 1.
    compare(killed_run, "full", tmp_path, "saving-10", resumes_from=5)


@pytest.mark.slow
def test_killed_before_the_seal(killed_run: ModuleType, tmp_path: Path) -> None:
    compare(killed_run, "full", tmp_path, "seal-15", resumes_from=10)


@pytest.mark.slow
def test_killed_at_a_random_step_orpo(killed_run: ModuleType, tmp_path: Path) -> None:
    step = random.SystemRandom().randint(7, 20)
    compare(killed_run, "orpo", tmp_path, f"step-{step}", resumes_from=(step - 1) // 3 * 3)


# Each method once in either kind of weights or either epoch; all of it is in `make test-exhaustive`.
IN_CI = {
    ("simpo", 7), ("dpo-full", 4), ("kto", 7), ("distillation", 7), ("reward-lora", 7), ("steps", 4), ("completion", 7),
    ("pretraining", 7),
}  # fmt: skip
KILLED = [
    *("simpo", "simpo-full", "dpo", "dpo-full", "kto", "kto-full", "distillation", "distillation-full"),
    *("reward", "reward-lora", "steps", "steps-lora", "completion", "pretraining"),
]


@pytest.mark.parametrize(
    ("case", "step"),
    [
        pytest.param(
            case,
            step,
            id=f"{case}-{'first' if step == 4 else 'second'} epoch",
            marks=pytest.mark.slow if (case, step) in IN_CI else pytest.mark.exhaustive,
        )
        for case in KILLED
        for step in (4, 7)
    ],
)
def test_killed_in_either_epoch(killed_run: ModuleType, tmp_path: Path, case: str, step: int) -> None:
    compare(killed_run, case, tmp_path, f"step-{step}", resumes_from=step - 1)


@pytest.mark.slow
def test_killed_between_an_evaluation_and_its_checkpoint_beside_early_stopping(
    killed_run: ModuleType, tmp_path: Path
) -> None:
    # In epoch 2: step 6 is scored, and checkpoint 6 is not written. What was best so far is in checkpoint 3.
    kill("early", tmp_path / "killed", "evaluation-6")
    left = {path.name for path in (tmp_path / "killed" / "checkpoints").iterdir()}
    assert left == {"checkpoint-3", "best-3"}
    resumed, whole = Heard(), Heard()
    data = killed_run.run("early", tmp_path / "killed", resumed.report)
    expected = killed_run.run("early", tmp_path / "whole", whole.report)
    assert min(resumed.steps("loss")) == 4
    assert folder_bytes(data) == folder_bytes(expected)
    for figure in ("best_step", "best_eval_loss", "stopped_early", "steps", "last_loss"):
        assert resumed.summary[figure] == whole.summary[figure], figure
    scores = whole.steps("eval_loss")
    assert resumed.steps("eval_loss") == {step: score for step, score in scores.items() if step > 3}
    # The best step lies before the kill, and the evaluations that are no better on both sides of it.
    best = whole.summary["best_step"]
    assert best == min(scores, key=lambda step: scores[step]) == 3
    assert whole.summary["stopped_early"] and whole.summary["steps"] == best + 5
