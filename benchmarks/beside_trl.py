"""What the scripts share that train beside TRL: a model, the clock of a training, a process for each, and the table."""

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

VOCABULARY, SEED, RATE = 4096, 42, 1e-3
# The same in both languages: float32 on a CPU, one rate, no checkpoint, a figure of every step.
OURS: dict[str, Any] = {
    "learning_rate": RATE, "optimizer": "adamw_torch", "lr_scheduler": "constant", "bf16": False, "logging_steps": 1,
    "save_strategy": "no", "seed": SEED,
}  # fmt: skip
THEIRS: dict[str, Any] = {
    "learning_rate": RATE, "optim": "adamw_torch", "lr_scheduler_type": "constant", "bf16": False, "logging_steps": 1,
    "save_strategy": "no", "seed": SEED, "use_cpu": True, "gradient_checkpointing": False, "report_to": "none",
    "disable_tqdm": True,
}  # fmt: skip

Figures = dict[str, float]


def write_model(folder: Path) -> None:
    """A model of 3 million weights with a tokenizer of words: `w0` is padding, `w1` the end."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=192, intermediate_size=512, num_hidden_layers=4, num_attention_heads=6,
        num_key_value_heads=3, max_position_embeddings=2048, tie_word_embeddings=False, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{n}": n for n in range(VOCABULARY)}, unk_token="w2"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", eos_token="w1").save_pretrained(folder)


def write_table(file: Path, table: Any) -> None:
    """Rows as the data stages write them."""
    import pyarrow as pa

    file.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table)


def new_workspace() -> Any:
    """Empty folders for a body."""
    from tunemill.stages.report import Workspace

    root = Path(tempfile.mkdtemp(dir=os.environ.get("SCRATCH")))
    folders = [root / name for name in ("data", "checkpoints", "logs")]
    for folder in folders:
        folder.mkdir()
    return Workspace(*folders)


@dataclass
class Clock:
    """When each step of a training in this process was over, by the wall and by the processor, and its loss."""

    steps: list[tuple[float, float, float]] = field(default_factory=list)

    def tick(self, loss: float) -> None:
        """A step is over."""
        self.steps.append((time.time(), time.process_time(), loss))

    def hear(self, event: dict[str, Any]) -> None:
        """What a body reports."""
        if event["type"] == "step" and "loss" in event["metrics"]:
            self.tick(event["metrics"]["loss"])

    def on_trainer(self, trainer: Any) -> Any:
        """Listen to one of TRL's trainers, which then prints nothing."""
        from transformers import PrinterCallback, TrainerCallback

        tick = self.tick

        class Listener(TrainerCallback):  # type: ignore[misc]
            def on_log(self, _args: Any, _state: Any, _control: Any, logs: dict[str, Any], **_: Any) -> None:
                if "loss" in logs:
                    tick(logs["loss"])

        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(Listener())
        return trainer

    def figures(self, started: float) -> Figures:
        """Of the steps after the first, and of the process since it was started."""
        (first, first_cpu, _), (last, last_cpu, loss) = self.steps[0], self.steps[-1]
        count = len(self.steps) - 1
        return {
            "steps_per_second": count / (last - first),
            "cpu_seconds_per_step": (last_cpu - first_cpu) / count,
            "seconds_to_first_step": first - started,
            "peak_gib": peak_gib(),
            "last_loss": loss,
        }


def peak_gib() -> float:
    """Most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def in_child(script: str, name: str, *options: str) -> Figures:
    """What `script` prints last in a process of its own, with these options and `--started`. Told as it ends."""
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [sys.executable, script, *options, "--started", str(time.time())],
            capture_output=True, text=True, check=False,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "SCRATCH": scratch},
        )  # fmt: skip
    if done.returncode:
        sys.exit(f"{name}: {done.stderr[-2000:]}")
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    print(name, {figure: round(value, 4) for figure, value in found.items()}, file=sys.stderr, flush=True)
    return found


def best(results: Sequence[Figures]) -> Figures:
    """The best of each figure: the most of what is per second, the least of the others, and the last loss."""
    kept = {"steps_per_second": max, "last_loss": lambda losses: losses[-1]}
    return {name: kept.get(name, min)([one[name] for one in results]) for name in results[0]}


def machine() -> str:
    """The day, the machine with its load, and the libraries."""
    names = ("torch", "transformers", "trl", "peft")
    threads = os.environ.get("OMP_NUM_THREADS")
    return (
        f"{date.today()}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores"
        f"{f' (OMP_NUM_THREADS={threads})' if threads else ''}, load average {os.getloadavg()[1]:.1f} at the end, "
        f"Python {platform.python_version()}, {', '.join(f'{name} {version(name)}' for name in names)}"
    )


def show(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def write_markdown(
    file: Path, title: str, head: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: str
) -> None:
    """The same as a page."""
    lines = ["| " + " | ".join(line) + " |" for line in (columns, ["---"] * len(columns), *rows)]
    file.write_text("\n\n".join([f"# {title}", head, "\n".join(lines), notes]) + "\n")
