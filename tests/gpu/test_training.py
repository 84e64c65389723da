"""Training on a GPU: kernels change nothing, and a run that is killed ends like one that is not."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.gpu import needs_gpu
from support.modules import load_module
from support.tiny_model import Heard, make_model, packs_of, random_rows, training_data, workspace

from tunemill.stages.artifacts import Model
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

pytestmark = needs_gpu

TESTS = Path(__file__).parents[1]
SCRIPT = TESTS / "stages" / "training" / "killed_run.py"
SETTINGS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "micro_batch_size": 2,
    "sample_packing": True,
    "sequence_len": 48,
    "max_steps": 20,
    "logging_steps": 1,
    "adapter": "lora",
    "lora_r": 4,
    "lora_alpha": 8,
    "lora_target_linear": True,
}


@pytest.fixture
def killed_run() -> Any:
    return load_module(SCRIPT)


@pytest.mark.parametrize("case", ["lora", "full", "orpo"])
def test_killed_and_resumed(killed_run: Any, case: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
    }
    child = subprocess.run(
        [sys.executable, str(SCRIPT), case, str(tmp_path / "killed"), "step-13"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr[-3000:]
    resumed, whole = Heard(), Heard()
    killed_run.run(case, tmp_path / "killed", resumed.report)
    killed_run.run(case, tmp_path / "whole", whole.report)
    logs = [event["message"] for event in resumed.of("log")]
    assert any(message.startswith("resuming from checkpoint-") for message in logs), logs
    later, losses = resumed.steps("loss"), whole.steps("loss")
    assert len(losses) == 20 and 0 < len(later) < 20
    # Not to the bit: some sums on a GPU are added up in another order each time.
    off = {step: later[step] - losses[step] for step in later}
    print(f"{case}: losses of the resumed run are off by at most {max(map(abs, off.values())):.2g}")
    assert later == pytest.approx({step: losses[step] for step in later}, rel=2e-3)
    assert losses[20] < losses[1]


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_kernels_change_nothing(precision: str, tmp_path: Path) -> None:
    base = Model(make_model(tmp_path / "base", hidden_size=128, num_attention_heads=2, intermediate_size=256))
    data = training_data(tmp_path / "rows", random_rows(40), packs_of(40, 3))
    losses = []
    for kernels in ("off", "auto"):
        heard = Heard()
        config = SftConfig(**SETTINGS, kernels=kernels, **{precision: True})
        sft(config, base, data, None, workspace(tmp_path / kernels), heard.report)
        losses.append(heard.steps("loss"))
        assert (heard.summary["kernels"] == "none") is (kernels == "off"), heard.summary
    assert losses[1] == pytest.approx(losses[0], rel=1e-4 if precision == "float32" else 2e-2)
