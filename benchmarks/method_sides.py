"""One training by a method, by us or by TRL, on the rows that `methods.py` has written. METHODS: what there is."""

import math
import os
import shutil
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.beside_trl import OURS, SEED, THEIRS, Clock, new_workspace

BATCH, LONGEST = 4, 512
# Where the stage's results lie, of each kind of rows.
STORED = "reference"


@dataclass(frozen=True)
class Compared:
    """A method: which rows it reads, TRL's trainer (module, then the name before `Trainer`), and settings of both."""

    rows: str
    module: str
    name: str
    ours: dict[str, Any] = field(default_factory=dict)
    theirs: dict[str, Any] = field(default_factory=dict)


METHODS = {
    "dpo": Compared("pairs", "trl", "DPO"),
    "ipo": Compared("pairs", "trl", "DPO", theirs={"loss_type": ["ipo"]}),
    "kto": Compared("rated", "trl", "KTO"),
    "orpo": Compared("pairs", "trl.experimental.orpo", "ORPO", {"orpo_alpha": 0.1}, {"beta": 0.1}),
    "simpo": Compared(
        "pairs", "trl.experimental.cpo", "CPO", {"rl_beta": 2.0, "simpo_gamma": 0.5, "cpo_alpha": 0.0},
        {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.5, "cpo_alpha": 0.0},
    ),
    "reward": Compared("scored", "trl", "Reward"),
}  # fmt: skip


def rows_of(method: str) -> str:
    """The folder of the rows that a method reads."""
    return METHODS[method].rows


def store_reference(method: str, work: Path) -> Clock:
    """Write what the model says of the rows before training, as the stage does. A step is a batch; it has no loss."""
    from tunemill.stages.artifacts import Model, PreferenceData
    from tunemill.stages.report import Report
    from tunemill.stages.training.reference_logprobs.body import reference_logprobs
    from tunemill.stages.training.reference_logprobs.config import ReferenceConfig

    out, clock = new_workspace(), Clock()
    config = ReferenceConfig(micro_batch_size=BATCH, sequence_len=LONGEST, bf16=False)
    hear = Report(lambda event: clock.tick(math.nan) if event["type"] == "progress" else None)
    reference_logprobs(config, Model(work / "model"), PreferenceData(work / rows_of(method)), out, hear)
    shutil.copytree(out.data, work / STORED / method, dirs_exist_ok=True)
    return clock


def by_tunemill(method: str, work: Path, steps: int, stored: bool) -> Clock:
    """Train by our stage's body. `stored`: read what the reference says, where the method has one."""
    from tunemill.stages.artifacts import Model, PreferenceData, ReferenceLogProbs
    from tunemill.stages.registry import METHODS as STAGES
    from tunemill.stages.report import Report

    stage, compared, clock = STAGES[method], METHODS[method], Clock()
    module, _, name = stage.body.partition(":")
    settings = {
        **OURS,
        "micro_batch_size": BATCH,
        "max_steps": steps,
        "curriculum_sampling": True,
        **compared.ours,
    }
    inputs: dict[str, Any] = {}
    if compared.rows != "scored":
        settings["sequence_len"] = LONGEST
    if "reference_logprobs" in stage.inputs and stored:
        inputs["reference_logprobs"] = ReferenceLogProbs(work / STORED / method)
    elif "reference_logprobs" in stage.inputs:
        settings["precompute_ref_log_probs"] = False
    getattr(import_module(module), name)(
        stage.config(**settings),
        base_model=Model(work / "model"),
        training_data=PreferenceData(work / compared.rows),
        evaluation_data=None,
        out=new_workspace(),
        report=Report(clock.hear),
        **inputs,
    )
    return clock


def by_trl(method: str, work: Path, steps: int, stored: bool) -> Clock:
    """Train by TRL. `stored`: with `precompute_ref_log_probs`."""
    import pyarrow as pa
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    compared, clock = METHODS[method], Clock()
    library = import_module(compared.module)
    settings = {
        **THEIRS, "output_dir": os.environ["SCRATCH"], "per_device_train_batch_size": BATCH, "max_steps": steps,
        "train_sampling_strategy": "sequential", "max_length": LONGEST, **compared.theirs,
    }  # fmt: skip
    if stored:
        settings["precompute_ref_log_probs"] = True
    with (
        pa.memory_map(str(work / compared.rows / "rows.arrow")) as source,
        pa.ipc.open_file(source) as reader,
    ):
        rows = Dataset(reader.read_all())
    if method == "reward":
        from tunemill.stages.models.loading_body import load_model
        from tunemill.stages.training.reward.config import REWARD

        model = load_model(work / "model", REWARD, seed=SEED, dtype=torch.float32)
    else:
        model = AutoModelForCausalLM.from_pretrained(work / "model", dtype=torch.float32)
    trainer = getattr(library, f"{compared.name}Trainer")(
        model=model,
        args=getattr(library, f"{compared.name}Config")(**settings),
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(work / "model"),
    )
    clock.on_trainer(trainer).train()
    return clock
