"""TRL's own trainers on our rows, for tests that compare them with ours: the same steps on a CPU in float32.

    heard = Heard(); body(Config(**OURS), base_model=base, training_data=data, report=heard.report, ...)
    assert_same_curves(heard, trl_log(Trainer, TrainerConfig, folder, base.path, dataset), ("loss", "rewards/margins"))

`OURS` and `THEIRS` are the same settings in both languages: ten steps of four rows, in the order of the rows.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from support.pairs import Texts
from support.tiny_model import Heard

STEPS = 10
OURS: dict[str, Any] = {
    "learning_rate": 1e-3, "optimizer": "adamw_torch", "lr_scheduler": "constant", "warmup_steps": 0,
    "max_steps": STEPS, "micro_batch_size": 4, "logging_steps": 1, "curriculum_sampling": True, "seed": 42,
    "bf16": False,
}  # fmt: skip
THEIRS: dict[str, Any] = {
    "learning_rate": 1e-3, "optim": "adamw_torch", "lr_scheduler_type": "constant", "warmup_steps": 0,
    "max_steps": STEPS, "per_device_train_batch_size": 4, "logging_steps": 1,
    "train_sampling_strategy": "sequential", "seed": 42, "bf16": False, "use_cpu": True,
    "gradient_checkpointing": False, "report_to": "none", "save_strategy": "no", "disable_tqdm": True,
}  # fmt: skip


def pairs_of(rows: Iterable[Texts]) -> Dataset:
    """(prompt, chosen, rejected) in TRL's columns."""
    return Dataset.from_list([dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in rows])


def trl_trainer(
    kind: Any, config: Any, folder: Path, base: Path, rows: Dataset, model: Any = None, **settings: Any
) -> Any:
    """A trainer of TRL over a base, as `THEIRS` and `settings` say. `model`: unset, the base as a causal model."""
    arguments = config(output_dir=str(folder), **{**THEIRS, **settings})
    return kind(
        model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32) if model is None else model,
        args=arguments,
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(base),
    )


def trl_log(
    kind: Any, config: Any, folder: Path, base: Path, rows: Dataset, **settings: Any
) -> list[dict[str, float]]:
    """What TRL logs of each step."""
    trainer = trl_trainer(kind, config, folder, base, rows, **settings)
    trainer.train()
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def assert_same_curves(
    heard: Heard, log: list[dict[str, float]], names: Iterable[str], rel: float = 1e-5
) -> None:
    """Each figure of each step is TRL's: equal to `rel` of it, and to as much where it is small."""
    for name in names:
        expected = {int(entry["step"]): entry[name] for entry in log}
        assert heard.steps(name) == pytest.approx(expected, rel=rel, abs=rel), name
