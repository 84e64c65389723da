"""How full sequences get, and how long packing takes. Prints one table from one run.

`python benchmarks/packing.py [--rows N] [--repeats N] [--json FILE] [--markdown FILE]` packs the same log-normal row
lengths into sequences of 2048, 4096 and 8192 tokens in several ways. Wall and CPU seconds are the best of the repeats,
from lengths to the finished list of which rows are in which sequence; TRL's way moves the rows' tokens too, as it is
meant to be used.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from tunemill.stages.data.rows.packing import pack, pack_in_sequence

Lengths = npt.NDArray[np.int64]
CAPACITIES = (2048, 4096, 8192)
# Of the length's logarithm: half of the rows are shorter than 270 tokens, the mean is about 400.
MEAN, DEVIATION = 5.6, 0.9
SEED = 42


@dataclass(frozen=True)
class Result:
    """One way of packing at one capacity. `efficiency` is tokens over all places for tokens."""

    capacity: int
    way: str
    sequences: int
    efficiency: float
    seconds: float
    cpu_seconds: float


def histogram(lengths: Lengths, capacity: int) -> int:
    """Tunemill: best fit decreasing on the histogram, then rows dealt out and shuffled."""
    return len(pack(lengths, capacity, SEED))


def sequential(lengths: Lengths, capacity: int) -> int:
    """Tunemill with sample_packing_sequentially: neighbours, a new sequence when one is full."""
    return len(pack_in_sequence(lengths, capacity))


def first_fit(lengths: Lengths, capacity: int) -> int:
    """The textbook: each row into the first sequence with room. A tree finds that one."""
    leaves = 1 << len(lengths).bit_length()
    room = [capacity] * (2 * leaves)
    opened = 0
    for length in lengths.tolist():
        node = 1
        while node < leaves:
            node = 2 * node if room[2 * node] >= length else 2 * node + 1
        opened = max(opened, node - leaves + 1)
        room[node] -= length
        while node > 1:
            node >>= 1
            room[node] = max(room[2 * node], room[2 * node + 1])
    return opened


def first_fit_decreasing(lengths: Lengths, capacity: int) -> int:
    """The same, longest rows first."""
    return first_fit(np.sort(lengths)[::-1], capacity)


def trl_bfd(lengths: Lengths, capacity: int) -> int:
    """TRL's pack_dataset, strategy bfd: it packs 1,000 rows at a time."""
    import datasets
    import pyarrow as pa
    from trl.data_utils import pack_dataset

    datasets.disable_progress_bars()
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    rows = pa.ListArray.from_arrays(offsets, pa.array(np.zeros(int(lengths.sum()), np.int32)))
    return len(pack_dataset(datasets.Dataset(pa.table({"input_ids": rows})), capacity, strategy="bfd"))


WAYS: dict[str, Callable[[Lengths, int], int]] = {
    "Tunemill": histogram,
    "Tunemill, sequentially": sequential,
    "first fit, row by row": first_fit,
    "first fit decreasing, row by row": first_fit_decreasing,
    f"TRL {version('trl')} bfd": trl_bfd,
}


def measure(way: str, lengths: Lengths, capacity: int, repeats: int) -> Result:
    """The fastest of `repeats` runs."""
    wall: list[float] = []
    cpu: list[float] = []
    sequences = 0
    for _ in range(repeats):
        started, used = time.perf_counter(), time.process_time()
        sequences = WAYS[way](lengths, capacity)
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
    efficiency = int(lengths.sum()) / (sequences * capacity)
    return Result(capacity, way, sequences, efficiency, min(wall), min(cpu))


def as_markdown(results: list[Result], rows: int) -> str:
    """A table with where and when it was measured."""
    place = (
        f"{rows:,} log-normal row lengths (mean of the logarithm {MEAN}, deviation {DEVIATION}), cut off at the "
        f"capacity. {date.today()}, {os.cpu_count()} cores ({processor()}), Python {platform.python_version()}, NumPy "
        f"{version('numpy')}."
    )
    head = ["| capacity | way | sequences | efficiency | wall s | CPU s |", "|---|---|---|---|---|---|"]
    body = [
        f"| {r.capacity} | {r.way} | {r.sequences:,} | {r.efficiency:.5f} | {r.seconds:.2f} | {r.cpu_seconds:.2f} |"
        for r in results
    ]
    lines = [place, "", *head, *body]
    return "\n".join(lines) + "\n"


def processor() -> str:
    """The processor's name, as far as the system tells."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )


def show(results: list[Result], rows: int) -> None:
    """Print the table."""
    table = Table(title=f"Packing {rows:,} rows")
    for column in ("capacity", "way", "sequences", "efficiency", "wall s", "CPU s"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for result in results:
        table.add_row(
            str(result.capacity),
            result.way,
            f"{result.sequences:,}",
            f"{result.efficiency:.5f}",
            f"{result.seconds:.2f}",
            f"{result.cpu_seconds:.2f}",
        )
    Console().print(table)


def main() -> None:
    """Measure, print, and write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows to pack")
    parser.add_argument("--repeats", type=int, default=5, help="runs of Tunemill's ways; the others run once")
    parser.add_argument("--json", type=Path, help="file for the results as JSON")
    parser.add_argument("--markdown", type=Path, help="file for the results as a Markdown table")
    given = parser.parse_args()
    drawn = np.random.default_rng(0).lognormal(MEAN, DEVIATION, given.rows)
    for way in WAYS:
        # Imports and first calls are not what is measured.
        measure(way, np.arange(1, 1001), 2048, 1)
    results = []
    for capacity in CAPACITIES:
        lengths = np.clip(drawn, 1, capacity).astype(np.int64)
        for way in WAYS:
            repeats = given.repeats if way.startswith("Tunemill") else 1
            results.append(measure(way, lengths, capacity, repeats))
    show(results, given.rows)
    if given.json:
        given.json.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")
    if given.markdown:
        given.markdown.write_text(as_markdown(results, given.rows))


if __name__ == "__main__":
    main()
