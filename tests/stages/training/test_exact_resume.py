"""Every family of optimizers and every scheduler goes on exactly from a checkpoint in the middle of epoch 2.

With accumulated gradients, in one process: `test_resume.py` kills real processes.
"""

import gc
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
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
from tunemill.stages.report import Report
from tunemill.stages.training.optimizers.table import OPTIMIZERS
from tunemill.stages.training.schedules.table import SCHEDULERS
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

LORA = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "lora_target_linear": True}
PROJECTED = {"optim_target_modules": ["q_proj", "up_proj"], "optim_args": {"rank": 4, "update_proj_gap": 2}}
# One optimizer and one scheduler a case, so that each of both is in some.
CASES: dict[str, dict[str, Any]] = {
    "adamw_torch_fused": {"lr_scheduler": "cosine", "weight_decay": 0.1},
    "adamw_torch": {"lr_scheduler": "one_cycle", "warmup_steps": 2, **LORA, "loraplus_lr_ratio": 4},
    "adafactor": {"lr_scheduler": "rex"},
    "sgd": {"lr_scheduler": "linear", "optim_args": {"momentum": 0.9}, "plugins": ["grokfast"]},
    "adagrad": {"lr_scheduler": "polynomial"},
    "rmsprop": {"lr_scheduler": "inverse_sqrt"},
    "muon": {
        "lr_scheduler": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr": 1e-3},
        "embedding_lr": 1e-3,
    },
    "adamw_bnb_8bit": {"lr_scheduler": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 3}},
    "paged_adamw_8bit": {
        "lr_scheduler": "cosine_with_restarts",
        "lr_scheduler_kwargs": {"num_cycles": 2},
        **LORA,
    },
    "lion_8bit": {"lr_scheduler": "constant_with_warmup", "warmup_steps": 2, "learning_rate": 1e-3},
    "ademamix": {"lr_scheduler": "cosine_warmup_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}},
    "rmsprop_bnb": {"lr_scheduler": "log_sweep", "lr_scheduler_kwargs": {"min_lr": 1e-4}},
    "adamw_torch_8bit": {"lr_scheduler": "constant"},
    "adamw_torch_4bit": {
        "lr_scheduler": "cosine",
        "jagged_restart_steps": 2,
        "jagged_restart_warmup_steps": 1,
    },
    "galore_adamw": {"lr_scheduler": "cosine", "lr_quadratic_warmup": True, "warmup_steps": 2, **PROJECTED},
    "apollo_adamw": {"lr_scheduler": "linear", **PROJECTED},
    "galore_adafactor_layerwise": {"gradient_accumulation_steps": 1, "micro_batch_size": 2, **PROJECTED},
    "schedule_free_adamw": {"lr_scheduler": "constant", "warmup_steps": 2},
    "schedule_free_sgd": {"lr_scheduler": "cosine"},
    "grokadamw": {
        "lr_scheduler": "reduce_lr_on_plateau",
        "eval_steps": 2,
        "lr_scheduler_kwargs": {"patience": 0, "factor": 0.5, "threshold": 0.5},
    },
    "stable_adamw": {
        "lr_scheduler": "greedy",
        "eval_steps": 2,
        "lr_scheduler_kwargs": {"patience": 0, "min_lr": 0},
    },
    "optimi_adamw": {},
    "came_pytorch": {"learning_rate": 1e-3},
    "adopt_adamw": {},
    "adamc": {"weight_decay": 0.1},
}


# One of each kind; the others take a minute.
FAST = ("adamw_torch", "sgd", "muon", "adamw_bnb_8bit", "galore_adamw")
IN_CI = (
    *FAST,
    "adafactor",
    "adamw_torch_4bit",
    "galore_adafactor_layerwise",
    "schedule_free_adamw",
    "grokadamw",
)


class StoppedError(Exception):
    """What stands for a killed process."""


@pytest.fixture(autouse=True, scope="module")
def not_compiled() -> Iterator[None]:
    # torchao compiles its step, for seconds.
    torch.compiler.set_stance("force_eager")
    # Each training collects garbage twice, most of its time, unless the libraries are left out of that.
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    torch.compiler.set_stance("default")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Large enough for a state of 8 bits: smaller tensors keep 32.
    return make_model(
        tmp_path_factory.mktemp("base") / "base", num_hidden_layers=1, hidden_size=64, intermediate_size=96,
        attention_dropout=0.1,
    )  # fmt: skip


def train(folder: Path, base: Path, name: str, report: Report) -> Path:
    # 8 rows, 2 a step: 4 steps an epoch. The checkpoint after step 6 lies in the middle of epoch 2.
    settings = {
        "learning_rate": 1e-2, "optimizer": name, "gradient_accumulation_steps": 2, "num_epochs": 2, "save_steps": 3,
        "logging_steps": 1, **CASES[name],
    }  # fmt: skip
    data = training_data(folder.parent / "rows", random_rows(8))
    config, out = SftConfig(**settings), workspace(folder)
    held_out = evaluation_data(folder.parent / "held_out", random_rows(3, seed=9))
    sft(config, Model(base), data, held_out if config.held_out_rows_decide else None, out, report)
    return out.data


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=[pytest.mark.slow] * (name not in FAST) + [pytest.mark.exhaustive] * (name not in IN_CI),
        )
        for name in CASES
    ],
)
def test_goes_on_exactly(tmp_path: Path, base: Path, name: str) -> None:
    if find_spec(OPTIMIZERS[name].made_by.partition(":")[0].partition(".")[0]) is None:
        pytest.skip(f"{OPTIMIZERS[name].library} is not installed")

    def interrupt(event: dict[str, Any]) -> None:
        if event["type"] == "step" and event["step"] == 7:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(tmp_path / "resumed", base, name, Report(interrupt))
    resumed, whole = Heard(), Heard()
    found = train(tmp_path / "resumed", base, name, resumed.report)
    expected = train(tmp_path / "whole", base, name, whole.report)
    first = 7 if OPTIMIZERS[name].keeps_state else 1
    assert min(resumed.steps("loss")) == first
    later = {step: loss for step, loss in whole.steps("loss").items() if step >= first}
    assert resumed.steps("loss") == later
    rates = whole.steps("learning_rate")
    assert resumed.steps("learning_rate") == {step: rates[step] for step in later}
    assert folder_bytes(found) == folder_bytes(expected)
    assert whole.steps("loss")[8] < whole.steps("loss")[1] + 1


def test_every_scheduler_has_a_case() -> None:
    assert {case.get("lr_scheduler", "cosine") for case in CASES.values()} == set(SCHEDULERS)


def test_every_class_has_a_case() -> None:
    # Those that a CPU can run; a class of several widths or pages has one.
    classes = {entry.made_by for entry in OPTIMIZERS.values() if not entry.needs_gpu}
    others = {"torchao.optim:AdamWFp8", "schedulefree:RAdamScheduleFree"}
    assert classes - {OPTIMIZERS[name].made_by for name in CASES} <= others
