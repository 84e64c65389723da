"""What several processes cost and bring: a training in 1, 2, ... of them, copied or shared out, with one global batch.

`python benchmarks/scale.py [--processes 1 2] [--kinds ddp fsdp2 zero3] [--steps 12] [--rounds 1] [--out FILE.md]`

Without a GPU the processes share the cores of this machine (`OMP_NUM_THREADS=1` gives each one), so the figures to look
at are CPU seconds, which what else the machine does changes least: of a step, and until the first one. `zero3` needs
DeepSpeed: where it is installed in a folder, name that in TUNEMILL_DEEPSPEED_PACKAGES.

On a machine with 8 GPUs, each kind by itself or in one call:

`torchrun --nproc-per-node 8 benchmarks/scale.py --kinds fsdp2 --hidden 4096 --layers 32 --micro 1 --length 4096`
`python benchmarks/scale.py --processes 1 2 4 8 --hidden 2048 --layers 16 --micro 4 --length 2048`

prints tokens per second, the share of the GPUs' peak (MFU, of 6 FLOPs a weight and token) and the most memory that any
GPU took. Figures are the best of the rounds.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from beside_trl import OURS, machine, show, write_markdown

HERE = Path(__file__).resolve().parent
VOCABULARY = 4096
# How processes share a training: each has a copy, or all share one.
KINDS: dict[str, dict[str, Any]] = {
    "ddp": {},
    "fsdp2": {"fsdp_version": 2},
    "zero3": {"deepspeed": "deepspeed_configs/zero3.json"},
}
# FLOPs per second of dense bfloat16, as NVIDIA's data sheets have them.
PEAKS = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12}
BEGAN = time.time()
# What is said of a training, in which column.
COLUMNS = {
    "seconds_to_first_step": "seconds to first step",
    "cpu_to_first_step": "CPU s to first step",
    "cpu_of_step": "CPU s of a step",
    "tokens_per_second": "tokens per second",
    "mfu": "MFU",
    "memory": "memory (GiB)",
    "last_loss": "last loss",
}


def train(config: Any, base_model: Any, training_data: Any, out: Any, report: Any) -> None:
    """The body: supervised training, and then what it took."""
    import torch

    from tunemill.stages.report import Report
    from tunemill.stages.training import ranks_body as ranks
    from tunemill.stages.training.sft.body import sft

    steps: list[tuple[float, float, float]] = []

    def hear(event: dict[str, Any]) -> None:
        if event["type"] == "step":
            steps.append((time.time(), time.process_time(), event["metrics"]["loss"]))

    sft(config, base_model, training_data, None, out, Report(hear))
    (first, cpu_first, _), (last, cpu_last, loss) = steps[0], steps[-1]
    count, tokens = len(steps) - 1, config.gradient_accumulation_steps * config.micro_batch_size
    per_second = count * tokens * config.sequence_len / (last - first)
    cpu = ranks.summed({"first": cpu_first, "step": (cpu_last - cpu_first) / count})
    figures = {
        "first_step_at": first, "cpu_to_first_step": cpu["first"], "cpu_of_step": cpu["step"],
        "tokens_per_second": per_second, "last_loss": loss,
    }  # fmt: skip
    if torch.cuda.is_available():
        weights = sum(file.stat().st_size for file in Path(base_model.path).glob("*.safetensors")) / 4
        name = torch.cuda.get_device_name()
        peak = next((flops for gpu, flops in PEAKS.items() if gpu in name), None)
        most = {f"{ranks.number()}": torch.cuda.max_memory_allocated() / 2**30}
        all_of = ranks.summed({str(rank): most.get(str(rank), 0.0) for rank in range(ranks.count())})
        figures["memory"] = max(all_of.values())
        if peak is not None:
            figures["mfu"] = 6 * weights * per_second / (peak * ranks.count())
    if ranks.is_first():
        report.summary(**figures)


def write_inputs(folder: Path, options: argparse.Namespace) -> None:
    """A model and rows of random tokens, all of the same length."""
    import numpy as np
    import pyarrow as pa
    import torch
    from beside_trl import write_model, write_table
    from transformers import LlamaConfig, LlamaForCausalLM

    write_model(folder / "model")
    torch.manual_seed(0)
    heads = max(1, options.hidden // 64)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=options.hidden, intermediate_size=8 * options.hidden // 3 // 16 * 16,
            num_hidden_layers=options.layers, num_attention_heads=heads, num_key_value_heads=heads,
            max_position_embeddings=options.length, tie_word_embeddings=False, pad_token_id=0, eos_token_id=1,
        )
    ).save_pretrained(folder / "model")  # fmt: skip
    count = options.batch * options.steps
    tokens = np.random.default_rng(0).integers(2, VOCABULARY, (count, options.length), dtype=np.int32)
    column = pa.array(list(tokens), pa.list_(pa.int32()))
    write_table(folder / "data" / "rows.arrow", pa.table({"input_ids": column, "labels": column}))
    packs = pa.table({"rows": pa.array([[row] for row in range(count)], pa.list_(pa.int32()))})
    write_table(folder / "data" / "packs.arrow", packs)


def settings_of(kind: str, processes: int, options: argparse.Namespace) -> dict[str, Any]:
    """The keys of a training."""
    return {
        **OURS, "bf16": "auto", "max_steps": options.steps, "sequence_len": options.length,
        "micro_batch_size": options.micro, "gradient_accumulation_steps": options.batch // options.micro,
        "processes": processes, **KINDS[kind],
    }  # fmt: skip


def measure(folder: Path, kind: str, processes: int, options: argparse.Namespace) -> dict[str, float]:
    """One training, as the pipeline launches it."""
    from tunemill.resources.calls import Call, name_of
    from tunemill.resources.launcher import in_child
    from tunemill.stages.artifacts import Model, TrainingData
    from tunemill.stages.errors import UserError
    from tunemill.stages.report import Report, Workspace
    from tunemill.stages.training.sft.config import SftConfig

    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as place:
        workspace = {name: str(Path(place) / name) for name in ("data", "checkpoints", "logs")}
        for one in workspace.values():
            Path(one).mkdir()
        call = Call(
            body="scale:train",
            config_class=name_of(SftConfig),
            config=settings_of(kind, processes, options),
            inputs={
                "base_model": (name_of(Model), str(folder / "model")),
                "training_data": (name_of(TrainingData), str(folder / "data")),
            },
            workspace_class=name_of(Workspace),
            workspace=workspace,
            report_class=name_of(Report),
            user_error=name_of(UserError),
            processes=processes,
        )
        began = time.time()
        in_child(call, lambda event: found.update(event["metrics"] if event["type"] == "summary" else {}))
    found["seconds_to_first_step"] = found.pop("first_step_at") - began
    print(processes, kind, {name: round(one, 4) for name, one in found.items()}, file=sys.stderr, flush=True)
    return found


def measure_here(kind: str, options: argparse.Namespace) -> dict[str, float] | None:
    """One training in the processes that torchrun has started, of which this is one; the first has its figures."""
    from tunemill.stages.artifacts import Model, TrainingData
    from tunemill.stages.report import Report, Workspace
    from tunemill.stages.training import ranks_body as ranks
    from tunemill.stages.training.sft.config import SftConfig

    ranks.meet(None)
    with tempfile.TemporaryDirectory() as own:
        folder = Path(ranks.agreed(own))
        with ranks.first_before_others():
            if ranks.is_first():
                write_inputs(folder, options)
        places = [Path(own) / name for name in ("made", "checkpoints", "logs")]
        for place in places:
            place.mkdir()
        found: dict[str, float] = {}
        report = Report(lambda event: found.update(event["metrics"] if event["type"] == "summary" else {}))
        config = SftConfig(**settings_of(kind, ranks.count(), options))
        model, rows = Model(folder / "model"), TrainingData(folder / "data")
        train(config, model, rows, Workspace(*places), report)
        ranks.wait_for_all()
    if not ranks.is_first():
        return None
    found["seconds_to_first_step"] = found.pop("first_step_at") - BEGAN
    return found


def best(results: list[dict[str, float]]) -> dict[str, float]:
    """The most of what is per second, the least of what it took, and the last loss."""
    kept = {"tokens_per_second": max, "mfu": max, "last_loss": lambda losses: losses[-1]}
    return {name: kept.get(name, min)([one[name] for one in results]) for name in results[0]}


def row_of(kind: str, processes: int, found: dict[str, float], alone: dict[str, float] | None) -> list[str]:
    """A line of the table; overhead is what a step takes of CPUs beyond what it takes of one process."""
    figures = [f"{found[name]:.4g}" if name in found else "-" for name in COLUMNS]
    over = (
        "-" if alone is None or processes == 1 else f"{found['cpu_of_step'] / alone['cpu_of_step'] - 1:+.0%}"
    )
    return [str(processes), "alone" if processes == 1 else kind, over, *figures]


def tell(rows: list[list[str]], options: argparse.Namespace) -> None:
    """Print the table, and write it where that is asked for."""
    columns = ("processes", "kind", "CPU of a step over one process", *COLUMNS.values())
    show(columns, rows)
    if options.out is not None:
        size = f"{options.layers} layers of {options.hidden}, {options.batch} rows of {options.length} tokens a step"
        about = f"{size}, {options.steps} steps, the best of {options.rounds}."
        write_markdown(options.out, "Several processes", machine(), columns, rows, about)


def options_of() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--kinds", choices=KINDS, nargs="+", default=["ddp", "fsdp2"])
    sizes = {"steps": 20, "hidden": 192, "layers": 4, "micro": 2, "length": 128, "rounds": 1}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def main() -> None:
    """Measure, and print a table."""
    options, started = options_of(), int(os.environ.get("WORLD_SIZE", 0))
    if started:
        if len(options.kinds) != 1:
            raise SystemExit("processes that torchrun has started train once: give one of --kinds")
        options.batch = options.micro * started
        found = measure_here(options.kinds[0], options)
        if found is not None:
            tell([row_of(options.kinds[0], started, found, None)], options)
        return
    options.batch = options.micro * max(options.processes)
    packages = os.environ.get("TUNEMILL_DEEPSPEED_PACKAGES", "")
    paths = [os.environ.get("PYTHONPATH", ""), str(HERE), packages if "zero3" in options.kinds else ""]
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    runs = [(kind, count) for count in options.processes for kind in options.kinds]
    # One process shares with nobody, whatever the kind.
    runs = [(kind, count) for kind, count in runs if count > 1 or kind == options.kinds[0]]
    with tempfile.TemporaryDirectory() as scratch:
        write_inputs(Path(scratch), options)
        results: dict[tuple[str, int], list[dict[str, float]]] = {one: [] for one in runs}
        for _ in range(options.rounds):
            # In turn, so that what else the machine does falls on all.
            for kind, count in runs:
                results[kind, count].append(measure(Path(scratch), kind, count, options))
    alone = next((best(found) for (_, count), found in results.items() if count == 1), None)
    tell([row_of(kind, count, best(found), alone) for (kind, count), found in results.items()], options)


if __name__ == "__main__":
    main()
