"""`trl.vllm_mode: colocate` with a real vLLM: its server shares the machine with the training, and ends with it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.online import trained, words_to_sort
from support.own_environment import ROOT, python_with_vllm
from support.tiny_model import Heard, make_model

from tunemill.stages.report import Report
from tunemill.stages.training.online.browsed import read_kept
from tunemill.stages.training.online.journal import Journal

pytestmark = pytest.mark.slow
pytest.importorskip("openai")
CHANCE = """
import random

def drawn(completions, **kwargs):
    return [random.random() for _ in completions]
"""
CHILD = """
import sys
from pathlib import Path
from stages.training.online.test_beside_training import colocated
from support.tiny_model import Heard

colocated(Path(sys.argv[1]), Heard().report)
"""


def colocated(folder: Path, report: Report) -> None:
    """Three steps of an adapter, each of a round that the server samples. Rewards differ always, so each moves it."""
    base, code = folder.parent / "base", folder.parent / "chance.py"
    if not base.exists():
        make_model(base, hidden_size=64)
    code.write_text(CHANCE)
    trained(
        folder, base, words_to_sort()[:8], report, use_vllm=True, vllm_mode="colocate",
        vllm_python=str(python_with_vllm()), vllm_server_timeout=400, max_steps=3, save_steps=1,
        reward_funcs=["chance.drawn"], reward_code=[str(code)], adapter="lora", lora_r=4, lora_alpha=8,
        lora_target_linear=True, learning_rate=1e-2,
    )  # fmt: skip


def processes_in(folder: Path) -> list[int]:
    """What runs in a folder, as its server does; not what is asked to."""
    found = []
    for one in Path("/proc").iterdir():
        try:
            if one.name.isdigit() and (one / "cwd").readlink() == folder:
                found.append(int(one.name))
        except OSError:
            continue
    return found


def until(holds, seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.2)


def test_it_samples_of_each_policy_and_ends_with_the_run_however_that_ends(tmp_path):
    folder = tmp_path / "run"
    journal = Journal(folder / "checkpoints" / "journal")
    there = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], env=there)
    try:
        until(lambda: journal.steps() or child.poll() is not None, 500, "no step was taken")
        assert child.poll() is None and processes_in(folder / "checkpoints"), "the server runs beside it"
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    until(
        lambda: not processes_in(folder / "checkpoints"), 30, "the server of a run that was killed lives on"
    )
    heard = Heard()
    colocated(folder, heard.report)
    assert not processes_in(folder / "checkpoints")
    assert any("beside the training" in one["message"] for one in heard.of("log"))
    said = (folder / "logs" / "vllm.log").read_text()
    assert "'gpu_memory_utilization': 0.3" in said
    # Each round is of the weights before its step, the first of the base; the server has proven that it has them.
    steps = {number: one.policy for number, one in journal.steps().items()}
    policies = [{one.completion.policy for one in journal.rollouts(number, 0)} for number in range(3)]
    assert policies[1:] == [{steps[1]}, {steps[2]}] and len(set.union(*policies)) == 3
    assert heard.summary["largest_mismatch"] < 1e-3
    assert len(read_kept(folder).rollouts) == 24
