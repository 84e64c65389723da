"""Supervised training beside TRL's SFTTrainer: the same model, the same packed rows, one run. Prints one table.

`python benchmarks/training.py [--steps N] [--repeats N] [--markdown FILE]`. Each training is a process of its own.
Tokens per second are those of the steps after the first; seconds to the first step count from the start of the process,
imports and loading with them. Of the repeats, which take turns, the best counts.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

# In place of this folder, whose files would hide packages of their names.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.beside_trl import (  # noqa: E402
    OURS,
    SEED,
    THEIRS,
    VOCABULARY,
    Clock,
    Figures,
    best,
    in_child,
    machine,
    new_workspace,
    show,
    write_markdown,
    write_model,
    write_table,
)

SEQUENCE, ROWS_IN_ONE, BATCH = 256, 4, 2
LORA = {"adapter": "lora", "lora_r": 8, "lora_alpha": 16, "lora_target_linear": True}
NOTES = """\
The last losses are near each other and not equal: each side has an order of its own, and without flash attention TRL
warns that rows which share a sequence see each other."""


def write_work(folder: Path, steps: int) -> None:
    """A model, and rows of equal length, four of which fill a sequence."""
    import numpy as np
    import pyarrow as pa

    write_model(folder / "model")
    count = steps * BATCH * ROWS_IN_ONE
    rows = np.random.default_rng(SEED).integers(3, VOCABULARY, (count, SEQUENCE // ROWS_IN_ONE)).tolist()
    kind = pa.list_(pa.int32())
    packs = [list(range(first, first + ROWS_IN_ONE)) for first in range(0, count, ROWS_IN_ONE)]
    write_table(
        folder / "rows.arrow", pa.table({"input_ids": pa.array(rows, kind), "labels": pa.array(rows, kind)})
    )
    write_table(folder / "packs.arrow", pa.table({"rows": pa.array(packs, kind)}))


def tunemill(work: Path, adapter: bool, steps: int) -> Clock:
    """The training by us."""
    from tunemill.stages.artifacts import Model, TrainingData
    from tunemill.stages.report import Report
    from tunemill.stages.training.sft.body import sft
    from tunemill.stages.training.sft.config import SftConfig

    clock = Clock()
    settings: dict[str, Any] = {"micro_batch_size": BATCH, "max_steps": steps, "sample_packing": True,
                                "sequence_len": SEQUENCE, **(LORA if adapter else {})}  # fmt: skip
    sft(
        SftConfig(**OURS, **settings),
        Model(work / "model"),
        TrainingData(work),
        None,
        new_workspace(),
        Report(clock.hear),
    )
    return clock


def trl(work: Path, adapter: bool, steps: int) -> Clock:
    """The same by TRL, which packs the rows itself."""
    import pyarrow as pa
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    clock = Clock()
    with pa.memory_map(str(work / "rows.arrow")) as source, pa.ipc.open_file(source) as reader:
        rows = Dataset(reader.read_all().select(["input_ids"]))
    lora = (
        LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        if adapter
        else None
    )
    arguments = SFTConfig(
        **THEIRS, output_dir=os.environ["SCRATCH"], per_device_train_batch_size=BATCH, max_steps=steps, packing=True,
        max_length=SEQUENCE, model_init_kwargs={"dtype": "float32"},
    )  # fmt: skip
    trainer = SFTTrainer(str(work / "model"), arguments, train_dataset=rows, peft_config=lora)
    clock.on_trainer(trainer).train()
    return clock


SIDES = {"Tunemill": tunemill, "TRL SFTTrainer": trl}


def rows_of(work: Path, steps: int, repeats: int) -> list[list[str]]:
    """A row for each training of each side."""
    rows = []
    for kind, adapter in (("full", False), ("LoRA", True)):
        given = ["--work", str(work), "--steps", str(steps), *(["--adapter"] if adapter else [])]
        found: dict[str, list[Figures]] = {name: [] for name in SIDES}
        for _ in range(repeats):
            for name in SIDES:
                found[name].append(in_child(__file__, name, "--side", name, *given))
        for name, results in found.items():
            top = best(results)
            rows.append([
                kind, name, f"{top['steps_per_second'] * BATCH * SEQUENCE:,.0f}",
                f"{top['seconds_to_first_step']:.1f}", f"{top['peak_gib']:.2f}", f"{top['last_loss']:.4f}",
            ])  # fmt: skip
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--adapter", action="store_true")
    parser.add_argument("--started", type=float)
    options = parser.parse_args()
    if options.side:
        clock = SIDES[options.side](options.work, options.adapter, options.steps)
        print(json.dumps(clock.figures(options.started)))
        return
    columns = ["training", "by", "tokens/s", "s to first step", "peak GiB", "last loss"]
    with tempfile.TemporaryDirectory() as work:
        write_work(Path(work), options.steps)
        rows = rows_of(Path(work), options.steps, options.repeats)
    show(columns, rows)
    if options.markdown:
        head = (
            f"{machine()}; `python benchmarks/training.py --steps {options.steps} --repeats {options.repeats}`: "
            f"3 million weights, batches of {BATCH} sequences of {SEQUENCE} tokens, {ROWS_IN_ONE} rows in each."
        )
        write_markdown(options.markdown, "Training beside TRL", head, columns, rows, NOTES)


if __name__ == "__main__":
    main()
