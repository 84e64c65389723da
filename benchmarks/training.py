"""Supervised training beside TRL's SFTTrainer: the same model, the same packed rows, one run. Prints one table.

`python benchmarks/training.py [--steps N] [--repeats N] [--markdown FILE]`. Each training is a process of its own.
Tokens per second are those of the steps after the first; seconds to the first step count from the start of the process,
imports and loading with them. Of the repeats, which take turns, the best counts.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

SEQUENCE, ROWS_IN_ONE, BATCH, VOCABULARY = 256, 4, 2, 4096
LORA = {"adapter": "lora", "lora_r": 8, "lora_alpha": 16, "lora_target_linear": True}
RATE, SEED = 1e-3, 42


def write_work(folder: Path, steps: int) -> None:
    """A model of 3 million weights and rows of equal length, four of which fill a sequence."""
    import numpy as np
    import pyarrow as pa
    import torch
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=192, intermediate_size=512, num_hidden_layers=4, num_attention_heads=6,
        num_key_value_heads=3, max_position_embeddings=2048, tie_word_embeddings=False, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    words = Tokenizer(models.WordLevel({f"w{n}": n for n in range(VOCABULARY)}, unk_token="w2"))
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", eos_token="w1").save_pretrained(
        folder / "model"
    )
    count = steps * BATCH * ROWS_IN_ONE
    rows = np.random.default_rng(SEED).integers(3, VOCABULARY, (count, SEQUENCE // ROWS_IN_ONE)).tolist()
    kind = pa.list_(pa.int32())
    table = pa.table({"input_ids": pa.array(rows, kind), "labels": pa.array(rows, kind)})
    packs = [list(range(first, first + ROWS_IN_ONE)) for first in range(0, count, ROWS_IN_ONE)]
    for name, content in (("rows", table), ("packs", pa.table({"rows": pa.array(packs, kind)}))):
        with (
            pa.OSFile(str(folder / f"{name}.arrow"), "wb") as file,
            pa.ipc.new_file(file, content.schema) as out,
        ):
            out.write_table(content)


def tunemill(work: Path, adapter: bool, steps: int) -> list[tuple[float, float]]:
    """Time and loss of each step."""
    from tunemill.stages.artifacts import Model, TrainingData
    from tunemill.stages.report import Report, Workspace
    from tunemill.stages.training.sft.body import sft
    from tunemill.stages.training.sft.config import SftConfig

    seen: list[tuple[float, float]] = []

    def hear(event: dict[str, Any]) -> None:
        if event["type"] == "step":
            seen.append((time.time(), event["metrics"]["loss"]))

    settings = {"learning_rate": RATE, "micro_batch_size": BATCH, "max_steps": steps, "logging_steps": 1,
                "sample_packing": True, "sequence_len": SEQUENCE, "save_strategy": "no", "lr_scheduler": "constant",
                "optimizer": "adamw_torch", "bf16": False, **(LORA if adapter else {})}  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / name for name in ("data", "checkpoints", "logs")]
        for folder in folders:
            folder.mkdir()
        sft(
            SftConfig(**settings),
            Model(work / "model"),
            TrainingData(work),
            None,
            Workspace(*folders),
            Report(hear),
        )
    return seen


def trl(work: Path, adapter: bool, steps: int) -> list[tuple[float, float]]:
    """The same by TRL, which packs the rows itself."""
    import pyarrow as pa
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    seen: list[tuple[float, float]] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_log(self, _args: Any, _state: Any, _control: Any, logs: dict[str, Any], **_: Any) -> None:
            if "loss" in logs:
                seen.append((time.time(), logs["loss"]))

    with pa.memory_map(str(work / "rows.arrow")) as source, pa.ipc.open_file(source) as reader:
        rows = Dataset(reader.read_all().select(["input_ids"]))
    lora = (
        LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        if adapter
        else None
    )
    arguments = SFTConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=BATCH, max_steps=steps, learning_rate=RATE,
        lr_scheduler_type="constant", optim="adamw_torch", packing=True, max_length=SEQUENCE, logging_steps=1,
        save_strategy="no", report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False, disable_tqdm=True,
        model_init_kwargs={"dtype": "float32"}, seed=SEED,
    )  # fmt: skip
    trainer = SFTTrainer(
        str(work / "model"), arguments, train_dataset=rows, peft_config=lora, callbacks=[Clock()]
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return seen


SIDES = {"Tunemill": tunemill, "TRL SFTTrainer": trl}


def one_side(name: str, work: Path, adapter: bool, steps: int, started: float) -> dict[str, float]:
    """The figures of one training in this process."""
    seen = SIDES[name](work, adapter, steps)
    (first, _), (last, loss) = seen[0], seen[-1]
    return {
        "tokens_per_second": (len(seen) - 1) * BATCH * SEQUENCE / (last - first),
        "seconds_to_first_step": first - started,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "last_loss": loss,
    }


def measure(name: str, work: Path, adapter: bool, steps: int) -> dict[str, float]:
    """One training in a process of its own."""
    command = [sys.executable, __file__, "--side", name, "--work", str(work), "--steps", str(steps)]
    command += ["--adapter"] if adapter else []
    started = time.time()
    done = subprocess.run(
        [*command, "--started", str(started)], capture_output=True, text=True, check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{name}: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def best(results: Sequence[dict[str, float]]) -> dict[str, float]:
    """The fastest of each figure; losses are the same in all."""
    return {
        "tokens_per_second": max(one["tokens_per_second"] for one in results),
        "seconds_to_first_step": min(one["seconds_to_first_step"] for one in results),
        "peak_gib": min(one["peak_gib"] for one in results),
        "last_loss": results[-1]["last_loss"],
    }


def rows_of(work: Path, steps: int, repeats: int) -> list[list[str]]:
    """A row for each training of each side."""
    rows = []
    for kind, adapter in (("full", False), ("LoRA", True)):
        found: dict[str, list[dict[str, float]]] = {name: [] for name in SIDES}
        for _ in range(repeats):
            for name in SIDES:
                found[name].append(measure(name, work, adapter, steps))
        for name, results in found.items():
            top = best(results)
            rows.append([
                kind, name, f"{top['tokens_per_second']:,.0f}", f"{top['seconds_to_first_step']:.1f}",
                f"{top['peak_gib']:.2f}", f"{top['last_loss']:.4f}",
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
        print(
            json.dumps(one_side(options.side, options.work, options.adapter, options.steps, options.started))
        )
        return
    columns = ["training", "by", "tokens/s", "s to first step", "peak GiB", "last loss"]
    with tempfile.TemporaryDirectory() as work:
        write_work(Path(work), options.steps)
        rows = rows_of(Path(work), options.steps, options.repeats)
    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    if options.markdown:
        lines = ["| " + " | ".join(line) + " |" for line in (columns, ["---"] * len(columns), *rows)]
        names = ("torch", "transformers", "trl", "peft")
        head = (
            f"{date.today()}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python "
            f"{platform.python_version()}, {', '.join(f'{name} {version(name)}' for name in names)}; "
            f"`python benchmarks/training.py --steps {options.steps} --repeats {options.repeats}`: 3 million weights, "
            f"batches of {BATCH} sequences of {SEQUENCE} tokens, {ROWS_IN_ONE} rows in each."
        )
        options.markdown.write_text(f"# Training beside TRL\n\n{head}\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
