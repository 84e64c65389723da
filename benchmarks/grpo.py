"""GRPO beside TRL's GRPOTrainer: the same model, prompts, reward and settings, both by `generate`. Prints one table.

`python benchmarks/grpo.py [--model DIR] [--steps N] [--repeats N] [--quick] [--markdown FILE]`. Each training is a
process of its own, on a GPU where there is one. Figures are of the steps after the first. Tokens are those of
completions: sampled per second of sampling, and trained per second of learning. Of the repeats, in which the sides take
turns, the best counts.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from importlib.util import module_from_spec, spec_from_file_location
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
    in_child,
    machine,
    new_workspace,
    peak_gib,
    show,
    write_markdown,
    write_model,
    write_table,
)

PROMPTS, WORDS = 64, (8, 24)
GENERATIONS, BATCH, LONGEST = 8, 32, 64
COLUMNS = [
    "by",
    "s/step",
    "CPU s/step",
    "sampled tokens/s",
    "trained tokens/s",
    "peak GiB",
    "reward at first",
]
TUNEMILL, TRL = "Tunemill", "TRL"
# Differs between almost any two texts, so that each group has something to learn from.
REWARD = """
def varied(completions, **kwargs):
    return [sum(map(ord, text)) % 97 / 97 for text in completions]
"""
NOTES = """\
Completions are learned from once, so neither side asks the model for probabilities before the step. Beside what TRL
does, Tunemill writes each round to the disk, asks rewards in a process of their own, and keeps the log-probability of
each sampled token. What is drawn differs, so rewards and losses are not equal. With Tunemill "trained" is of the
forward and backward pass and the optimizer, with TRL of all of a step but sampling: compare seconds per step."""


def write_work(folder: Path, model: Path) -> None:
    """Prompts of words drawn at random, as texts and as the artifact that a stage would make, and the reward."""
    import pyarrow as pa
    from transformers import AutoTokenizer

    from tunemill.stages.data.rows.prompt_rows import OF_ALL

    tokenizer, draw = AutoTokenizer.from_pretrained(model), random.Random(SEED)
    texts = [
        " ".join(f"w{draw.randrange(3, VOCABULARY)}" for _ in range(draw.randint(*WORDS)))
        for _ in range(PROMPTS)
    ]
    rows = [
        {
            "dataset": 1, "source_row": number, "prompt_ids": tokenizer(text)["input_ids"],
            "prompt": json.dumps(text), "columns": "{}",
        }
        for number, text in enumerate(texts, 1)
    ]  # fmt: skip
    write_table(folder / "prompts" / "rows.arrow", pa.Table.from_pylist(rows, schema=OF_ALL))
    (folder / "prompts.json").write_text(json.dumps(texts))
    (folder / "measured.py").write_text(REWARD)


def by_tunemill(model: Path, work: Path, steps: int) -> tuple[Clock, list[Figures]]:
    """Train by the stage's body; the figures of each step."""
    from tunemill.stages.artifacts import Model, PromptData
    from tunemill.stages.report import Report
    from tunemill.stages.training.grpo.config import GrpoConfig
    from tunemill.stages.training.online.learning_body import learn

    clock, told = Clock(), []

    def hear(event: dict[str, Any]) -> None:
        clock.hear(event)
        if event["type"] == "step" and "loss" in event["metrics"]:
            metrics = event["metrics"]
            told.append(
                {
                    "sampled": metrics["engine_tokens_per_second"],
                    "trained": metrics["trainer_tokens_per_second"],
                    "reward": metrics["reward"],
                }
            )

    keys = {
        **OURS, "bf16": on_gpu(), "reward_funcs": ["measured.varied"], "reward_code": [str(work / "measured.py")],
        "num_generations": GENERATIONS, "max_completion_length": LONGEST, "micro_batch_size": BATCH,
        "gradient_accumulation_steps": 1, "max_steps": steps, "warmup_steps": 0,
    }  # fmt: skip
    learn(GrpoConfig(**keys), Model(model), PromptData(work / "prompts"), new_workspace(), Report(hear))
    return clock, told


def by_trl(model: Path, work: Path, steps: int) -> tuple[Clock, list[Figures]]:
    """Train by TRL, whose sampling is timed around the method that does it; the figures of each step."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    sampling: list[tuple[float, int]] = []

    class Timed(GRPOTrainer):  # type: ignore[misc]
        def _generate(self, prompts: list[Any]) -> Any:
            started = time.monotonic()
            made = super()._generate(prompts)
            sampling.append((time.monotonic() - started, sum(map(len, made[1]))))
            return made

    clock = Clock()
    settings = {
        **THEIRS, "use_cpu": not on_gpu(), "bf16": on_gpu(), "output_dir": os.environ["SCRATCH"], "max_steps": steps,
        "num_generations": GENERATIONS, "max_completion_length": LONGEST, "per_device_train_batch_size": BATCH,
        "gradient_accumulation_steps": 1,
    }  # fmt: skip
    trainer = Timed(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        reward_funcs=reward_of(work / "measured.py"),
        args=GRPOConfig(**settings),
        train_dataset=Dataset.from_dict({"prompt": json.loads((work / "prompts.json").read_text())}),
        processing_class=AutoTokenizer.from_pretrained(model),
    )
    clock.on_trainer(trainer).train()
    ends = [wall for wall, _, _ in clock.steps]
    rest = [b - a - seconds for a, b, (seconds, _) in zip(ends, ends[1:], sampling[1:], strict=False)]
    rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    told = [
        {"sampled": tokens / seconds, "trained": tokens / over, "reward": reward}
        for (seconds, tokens), over, reward in zip(sampling, [rest[0], *rest], rewards, strict=True)
    ]
    return clock, told


def reward_of(file: Path) -> Any:
    """The reward of the file as a function."""
    spec = spec_from_file_location("measured", file)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.varied


def on_gpu() -> bool:
    """Whether there is one."""
    import torch

    return torch.cuda.is_available()


def peak() -> float:
    """Most memory that this process has had, on the GPU where there is one."""
    import torch

    return torch.cuda.max_memory_allocated() / 2**30 if on_gpu() else peak_gib()


def one_side(side: str, model: Path, work: Path, steps: int, started: float) -> Figures:
    """The figures of this process, which does one of them."""
    clock, told = (by_tunemill if side == TUNEMILL else by_trl)(model, work, steps)
    return {
        **clock.figures(started),
        "peak_gib": peak(),
        **{name: statistics.median(one[name] for one in told[1:]) for name in ("sampled", "trained")},
        "first_reward": told[0]["reward"],
    }


def best_of(results: list[Figures]) -> Figures:
    """The best of each figure."""
    less = {"cpu_seconds_per_step", "peak_gib", "seconds_to_first_step"}
    return {name: (min if name in less else max)(one[name] for one in results) for name in results[0]}


def told(side: str, top: Figures) -> list[str]:
    """A row of the table."""
    return [
        side, f"{1 / top['steps_per_second']:.2f}", f"{top['cpu_seconds_per_step']:.2f}", f"{top['sampled']:.0f}",
        f"{top['trained']:.0f}", f"{top['peak_gib']:.2f}", f"{top['first_reward']:.3f}",
    ]  # fmt: skip


def measured(model: Path, work: Path, steps: int, repeats: int) -> list[list[str]]:
    """A row for each side."""
    write_work(work, model)
    found: dict[str, list[Figures]] = {TUNEMILL: [], TRL: []}
    given = ["--model", str(model), "--work", str(work), "--steps", str(steps)]
    for _ in range(repeats):
        for side, results in found.items():
            results.append(in_child(__file__, side, "--side", side, *given))
    return [told(side, best_of(results)) for side, results in found.items()]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", type=Path, help="a model's folder; unset: one of 3 million weights, made here"
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--quick", action="store_true", help="three steps, once: the figures then mean nothing"
    )
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--side", choices=(TUNEMILL, TRL))
    parser.add_argument("--work", type=Path)
    parser.add_argument("--started", type=float)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(one_side(options.side, options.model, options.work, options.steps, options.started)))
        return
    steps, repeats = (3, 1) if options.quick else (options.steps, options.repeats)
    with tempfile.TemporaryDirectory() as name:
        work, model = Path(name), options.model
        if model is None:
            model = work / "model"
            write_model(model)
        rows = measured(model, work, steps, repeats)
    show(COLUMNS, rows)
    if options.markdown:
        head = (
            f"{machine()}; `python benchmarks/grpo.py --steps {steps} --repeats {repeats}`: "
            f"{options.model.name if options.model else '3 million weights'}, {PROMPTS} prompts of {WORDS[0]} to "
            f"{WORDS[1]} words, steps of {BATCH} completions, {GENERATIONS} of a prompt, at most {LONGEST} tokens."
        )
        write_markdown(options.markdown, "GRPO beside TRL", head, COLUMNS, rows, NOTES)


if __name__ == "__main__":
    main()
