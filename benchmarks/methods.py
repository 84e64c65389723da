"""Each method of training beside TRL's trainer for it: the same model, rows and settings, one run. Prints one table.

`python benchmarks/methods.py [--steps N] [--repeats N] [--only METHOD ...] [--quick] [--markdown FILE]`. Each training
is a process of its own. Steps per second, and seconds of the processor per step, are those of the steps after the
first; seconds to the first step count from the start of the process, imports and loading with them. Of the repeats,
in which the sides of a method take turns, the best counts.
"""

import argparse
import json
import math
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

# In place of this folder, whose files would hide packages of their names.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.beside_trl import (  # noqa: E402
    SEED,
    VOCABULARY,
    Figures,
    best,
    in_child,
    machine,
    show,
    write_markdown,
    write_model,
    write_table,
)
from benchmarks.method_sides import (  # noqa: E402
    BATCH,
    METHODS,
    by_trl,
    by_tunemill,
    rows_of,
    store_reference,
)

PROMPT, ANSWER = (16, 48), (8, 32)
COLUMNS = ["training", "by", "steps/s", "CPU ms/step", "s to first step", "s in all", "peak GiB", "last loss"]
OURS, ASKED, STAGE, TRLS, TRLS_STORED = (
    "Tunemill",
    "Tunemill, reference beside each step",
    "Tunemill, the stage reference_logprobs",
    "TRL",
    "TRL, precompute_ref_log_probs",
)
NOTES = """\
The last losses of a method are equal where both sides do the same; KTO's differ, because TRL takes the answers that
are compared with from the same batch, and we from the row before. "Tunemill" of DPO, IPO and KTO reads what the stage
has stored, which is computed once for all trainings on the same base and rows; a step of the stage is a batch of rows.
TRL has no trainer of process reward models. Beside other work on the machine, CPU ms/step is what to compare."""


def write_work(folder: Path, count: int) -> None:
    """A model, and so many rows for each kind of method: words drawn at random, of unequal lengths."""
    import pyarrow as pa

    write_model(folder / "model")
    draw = random.Random(SEED)

    def some(lengths: tuple[int, int]) -> list[int]:
        return [draw.randrange(3, VOCABULARY) for _ in range(draw.randint(*lengths))]

    rows = [(some(PROMPT), some(ANSWER), some(ANSWER)) for _ in range(count)]
    prompts = [text(prompt) + " " for prompt, _, _ in rows]
    chosen, rejected = ([text(row[side]) for row in rows] for side in (1, 2))
    write_table(
        folder / "pairs" / "rows.arrow",
        pa.table({"prompt": prompts, "chosen": chosen, "rejected": rejected}),
    )
    judged = [index % 2 == 0 for index in range(count)]
    write_table(
        folder / "rated" / "rows.arrow",
        pa.table({"prompt": prompts, "completion": chosen, "label": judged}),
    )
    ids = {
        f"{name}_ids": [row[0] + row[side] for row in rows] for name, side in (("chosen", 1), ("rejected", 2))
    }
    kind = pa.list_(pa.int32())
    write_table(
        folder / "scored" / "rows.arrow", pa.table({name: pa.array(all_, kind) for name, all_ in ids.items()})
    )


def text(words: Sequence[int]) -> str:
    """Words of the model's tokenizer."""
    return " ".join(f"w{word}" for word in words)


def sides_of(method: str) -> list[str]:
    """What is measured of a method, in the order of the table; the stage comes before what reads it."""
    if method in ("dpo", "ipo"):
        return [STAGE, OURS, ASKED, TRLS_STORED, TRLS]
    return [STAGE, OURS, TRLS_STORED, TRLS] if rows_of(method) == "rated" else [OURS, TRLS]


def one_side(method: str, side: str, work: Path, steps: int, started: float) -> Figures:
    """The figures of this process, which does one of them."""
    if side == STAGE:
        clock = store_reference(method, work)
    elif side in (TRLS, TRLS_STORED):
        clock = by_trl(method, work, steps, stored=side == TRLS_STORED)
    else:
        clock = by_tunemill(method, work, steps, stored=side == OURS)
    return {**clock.figures(started), "seconds_in_all": time.time() - started}


def rows_of_table(methods: Sequence[str], work: Path, steps: int, repeats: int) -> list[list[str]]:
    """A row for each side of each method."""
    rows = []
    for method in methods:
        found: dict[str, list[Figures]] = {side: [] for side in sides_of(method)}
        given = ["--method", method, "--work", str(work), "--steps", str(steps)]
        for _ in range(repeats):
            for side in found:
                figures = in_child(__file__, f"{method}, {side}", "--side", side, *given)
                found[side].append(figures)
        rows += [told(method, side, best(results)) for side, results in found.items()]
    return rows


def told(method: str, side: str, top: Figures) -> list[str]:
    """A row of the table."""
    loss = top["last_loss"]
    return [
        method, side, f"{top['steps_per_second']:.2f}", f"{1000 * top['cpu_seconds_per_step']:.1f}",
        f"{top['seconds_to_first_step']:.1f}", f"{top['seconds_in_all']:.1f}", f"{top['peak_gib']:.2f}",
        "" if math.isnan(loss) else f"{loss:.4f}",
    ]  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--quick", action="store_true", help="three steps, once: the figures then mean nothing"
    )
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--method", choices=METHODS)
    parser.add_argument("--side", choices=(OURS, ASKED, STAGE, TRLS, TRLS_STORED))
    parser.add_argument("--work", type=Path)
    parser.add_argument("--started", type=float)
    options = parser.parse_args()
    if options.side:
        print(
            json.dumps(one_side(options.method, options.side, options.work, options.steps, options.started))
        )
        return
    steps, repeats = (3, 1) if options.quick else (options.steps, options.repeats)
    with tempfile.TemporaryDirectory() as work:
        write_work(Path(work), steps * BATCH)
        rows = rows_of_table(options.only, Path(work), steps, repeats)
    show(COLUMNS, rows)
    if options.markdown:
        head = (
            f"{machine()}; `python benchmarks/methods.py --steps {steps} --repeats {repeats}`: 3 million weights, "
            f"batches of {BATCH} rows: prompts of {PROMPT[0]} to {PROMPT[1]} tokens, answers of {ANSWER[0]} to "
            f"{ANSWER[1]}, one epoch."
        )
        write_markdown(options.markdown, "Methods beside TRL", head, COLUMNS, rows, NOTES)


if __name__ == "__main__":
    main()
