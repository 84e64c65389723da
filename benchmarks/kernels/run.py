"""Every kernel against its competitors, and a training step, on one GPU. Leaves `kernels.csv` and `kernels.md`.

`python benchmarks/kernels/run.py [--out benchmarks/results] [--minutes 7.5] [--only KERNEL ...] [--smoke]` from a
checkout of the repository; torch is needed, Triton, transformers and PEFT for most rows. Times are the GPU's (see
`timing`). Exits with 1 if one of our own rows FAILED; what is missing of other libraries, or ran out of time, is said
in its row. `--smoke` takes tiny shapes, and so does `--device cpu`: the numbers then mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# In place of this folder, whose files would hide packages of their names.
sys.path[0] = str(ROOT)

from benchmarks.kernels.kernel_files import kernel_names  # noqa: E402
from benchmarks.kernels.losses import with_losses_compared  # noqa: E402
from benchmarks.kernels.progress import Progress  # noqa: E402
from benchmarks.kernels.row import FAILED, MARK, OUT_OF_TIME, TRAINING_STEP, Row  # noqa: E402
from benchmarks.kernels.tables import write_csv, write_markdown  # noqa: E402
from benchmarks.kernels.ways import INTRUSIVE, OURS  # noqa: E402

# A unit that does not end by itself is ended this long after its deadline, or when it has said nothing for so long:
# compiling a whole model takes a minute or two, nothing else takes half as long.
GRACE_SECONDS = 8
LONGEST_SILENCE_SECONDS = 150
# Parts of the run, each in a process of its own where it changes libraries for those after it, and the share of the
# time after which it begins nothing new. Time that is left over goes on to the next.
GPU_GROUPS: list[tuple[tuple[str, ...], float]] = [
    (("kernels",), 0.45),
    (("intrusive",), 0.52),
    (("training",), 0.75),
    (("training Liger",), 0.85),
    (("training compiled",), 0.93),
    (("compiled",), 1.0),
]
# Starting a process takes longer than what is measured there; Liger changes transformers, so it comes last.
CPU_GROUPS: list[tuple[tuple[str, ...], float]] = [
    (("kernels", "intrusive", "compiled", "training", "training compiled", "training Liger"), 1.0)
]


@dataclass(kw_only=True)
class Results:
    """What the measuring processes have said so far."""

    rows: list[Row] = field(default_factory=list)
    limits: dict[str, Any] | None = None


@dataclass(kw_only=True)
class Attempt:
    """One measuring process: its plan, the unit it is in, and how it ended."""

    plan: list[Row] = field(default_factory=list)
    finished: int = 0
    begun: int | None = None
    code: int = 0
    last_words: str = ""
    heard: float = field(default_factory=time.time)


def groups_for(options: argparse.Namespace) -> list[tuple[tuple[str, ...], float]]:
    """Which parts share a process, and until when."""
    groups = all_groups(options.device)
    kinds = {name == TRAINING_STEP for name in options.only} or {True, False}
    return [group for group in groups if kinds & {part.startswith("training") for part in group[0]}]


def all_groups(device: str) -> list[tuple[tuple[str, ...], float]]:
    """Every part. Libraries that are not there need no process of their own to say so."""
    if device == "cpu":
        return CPU_GROUPS
    if any(find_spec(name) for name in INTRUSIVE.values()):
        return GPU_GROUPS
    (first, share), _, *others = GPU_GROUPS
    return [((*first, "intrusive"), share), *others]


def run_group(
    parts: tuple[str, ...], deadline: float, options: argparse.Namespace, results: Results, shown: Progress
) -> None:
    """Measure some parts; a process that is lost is followed by another that begins behind the unit it was lost in."""
    skip = 0
    while True:
        attempt = run_process(parts, skip, deadline, options, results, shown)
        if attempt.begun is not None and attempt.begun >= attempt.finished:
            results.rows.append(lost(attempt, deadline))
            shown.row(results.rows[-1])
            attempt.finished = attempt.begun + 1
        if attempt.code == 0 or time.time() > deadline or attempt.finished == skip:
            break
        skip = attempt.finished
    if attempt.code == 0:
        return
    if results.limits is None:
        raise SystemExit(
            f"{attempt.last_words or 'no error'} (the measuring process ended with {attempt.code})"
        )
    if time.time() > deadline:
        results.rows += [replace(row, note=OUT_OF_TIME) for row in attempt.plan[attempt.finished :]]
    elif attempt.finished < len(attempt.plan) or not attempt.plan:
        text = f"{FAILED}: the measuring process did not start ({attempt.code}): {attempt.last_words}"
        results.rows.append(Row(kernel=" and ".join(parts), shape="", dtype="", way=OURS, note=text))


def lost(attempt: Attempt, deadline: float) -> Row:
    """The row in which a process ended."""
    assert attempt.begun is not None
    row = attempt.plan[attempt.begun]
    if time.time() > deadline:
        return replace(row, note=OUT_OF_TIME)
    text = f"the process ended with {attempt.code}: {attempt.last_words}"[:200]
    return replace(row, note=f"{FAILED}: {text}" if row.way == OURS else text)


def run_process(
    parts: tuple[str, ...],
    skip: int,
    deadline: float,
    options: argparse.Namespace,
    results: Results,
    shown: Progress,
) -> Attempt:
    """One measuring process, until it ends or is ended."""
    order = {
        "parts": parts,
        "only": options.only,
        "skip": skip,
        "deadline": deadline,
        "device": options.device,
        "tiny": options.smoke,
        "limits": results.limits is None,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.kernels.measure", json.dumps(order)],
        cwd=ROOT,
        env=environment(options.device),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    attempt = Attempt(finished=skip)
    listener = threading.Thread(target=keep_last_words, args=(process, attempt), daemon=True)
    listener.start()
    watcher = threading.Thread(target=end_if_stuck, args=(process, attempt, deadline), daemon=True)
    watcher.start()
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith(MARK):
                take(json.loads(line.removeprefix(MARK)), attempt, results, shown)
        attempt.code = process.wait()
        listener.join(timeout=5)
    finally:
        process.kill()
    return attempt


def environment(device: str) -> dict[str, str]:
    """Ours, offline, with Triton compiling for the GPU rather than interpreting, and no GPU on a CPU's run."""
    given = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    paths = [str(ROOT), *filter(None, [given.get("PYTHONPATH")])]
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    return (
        given
        | hidden
        | {
            "PYTHONPATH": os.pathsep.join(paths),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
    )


def end_if_stuck(process: subprocess.Popen[str], attempt: Attempt, deadline: float) -> None:
    """End a process past its time, or one that has long said nothing."""
    while process.poll() is None:
        now = time.time()
        if now > deadline + GRACE_SECONDS or now > attempt.heard + LONGEST_SILENCE_SECONDS:
            process.kill()
        time.sleep(0.5)


def keep_last_words(process: subprocess.Popen[str], attempt: Attempt) -> None:
    """Read the error stream to its end, so that it never fills up, and keep its last line."""
    assert process.stderr is not None
    for line in process.stderr:
        attempt.last_words = line.strip() or attempt.last_words


def take(message: dict[str, Any], attempt: Attempt, results: Results, shown: Progress) -> None:
    """Understand one message of a measuring process."""
    attempt.heard = time.time()
    if "limits" in message:
        results.limits = message["limits"]
    if "plan" in message:
        attempt.plan = [Row(**row) for row in message["plan"]]
        shown.plan(len(attempt.plan) - attempt.finished)
    if "begin" in message:
        attempt.begun = message["begin"]
    if "row" in message:
        results.rows.append(Row(**message["row"]))
        attempt.finished = message["number"] + 1
        shown.row(results.rows[-1])


def main() -> int:
    """Measure, write both files, and say what failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the tables"
    )
    parser.add_argument("--minutes", type=float, default=7.5, help="after which nothing new is begun")
    choices = [*kernel_names(), TRAINING_STEP]
    parser.add_argument("--only", nargs="+", choices=choices, default=[], metavar="KERNEL")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--smoke", action="store_true", help="tiny shapes")
    options = parser.parse_args()
    options.smoke = options.smoke or options.device == "cpu"
    started = time.time()
    results = Results()
    with Progress() as shown:
        for parts, share in groups_for(options):
            run_group(parts, started + 60 * options.minutes * share, options, results, shown)
    assert results.limits is not None
    results.rows = with_losses_compared(results.rows)
    options.out.mkdir(parents=True, exist_ok=True)
    write_csv(options.out / "kernels.csv", results.rows, results.limits)
    seconds = time.time() - started
    write_markdown(options.out / "kernels.md", results.rows, results.limits, seconds, smoke=options.smoke)
    print(f"{options.out / 'kernels.md'} and kernels.csv: {len(results.rows)} rows in {seconds:.0f} s")
    failed = [row for row in results.rows if row.has_failed]
    for row in failed:
        print(f"{row.kernel} {row.shape} {row.dtype} {row.way}: {row.note}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
