"""The measuring process: `run.py` starts it, and starts another where it ended if the GPU or the process is lost.

Takes one JSON argument (see `Order`) and writes lines that begin with `row.MARK`, each one message as JSON:
`{"plan": rows}`, `{"limits": ...}`, `{"begin": number}`, `{"row": ..., "number": ...}`. Everything else on
standard output is other libraries' talk.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from typing import Any

import torch

from benchmarks.kernels import kernel_unit, training_step
from benchmarks.kernels.case import Case, Setting
from benchmarks.kernels.kernel_files import kernel_names
from benchmarks.kernels.limits import measure_limits
from benchmarks.kernels.row import MARK, OUT_OF_TIME, Row
from benchmarks.kernels.ways import COMPILED, EAGER, INTRUSIVE, LIGER, OURS

GPU_LOST = 3
PARTS = ("kernels", "intrusive", "training", "training Liger", "training compiled", "compiled")


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a process is to do: the units of these parts but the first `skip`, until `deadline` (seconds, Unix time)."""

    parts: tuple[str, ...]
    only: tuple[str, ...]
    """Kernels, or `training_step`; all if empty."""
    skip: int
    deadline: float
    device: str
    tiny: bool
    limits: bool


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One row to be."""

    row: Row
    measure: Callable[[], Row]


def kernel_cases(setting: Setting) -> list[tuple[int, Case]]:
    """(place in its file, case) of all kernels."""
    found = []
    for name in kernel_names():
        module = import_module(f"benchmarks.kernels.{name}")
        found += list(enumerate(module.cases(setting)))
    return found


def units_of(part: str, setting: Setting) -> list[Unit]:
    """The units of one of `PARTS`. Compiling takes longest, so there each kernel's first case comes first."""
    if part.startswith("training"):
        ways = {"training": (EAGER, OURS), "training Liger": (LIGER,), "training compiled": (COMPILED,)}[part]
        return [training_unit(training) for training in training_step.trainings(setting, ways)]
    cases = kernel_cases(setting)
    if part == "compiled":
        cases.sort(key=lambda placed: placed[0])
        return [kernel_unit_of(case, COMPILED) for _, case in cases if COMPILED in case.ways]
    return [
        kernel_unit_of(case, way)
        for _, case in cases
        for way in case.ways
        if way != COMPILED and (way in INTRUSIVE) == (part == "intrusive")
    ]


def kernel_unit_of(case: Case, way: str) -> Unit:
    """One way of one case."""
    return Unit(row=kernel_unit.empty_row(case, way), measure=lambda: kernel_unit.measure(case, way))


def training_unit(training: training_step.Training) -> Unit:
    """One training step."""
    return Unit(row=training.row, measure=lambda: training_step.measure(training))


def tell(**message: Any) -> None:
    """One line to `run.py`."""
    print(MARK + json.dumps(message), flush=True)


def gpu_is_lost(device: str) -> bool:
    """Whether an error has made this process's GPU unusable, as a bad memory access does."""
    if device != "cuda":
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def main() -> int:
    """Measure what the order says."""
    given = json.loads(sys.argv[1])
    order = Order(**(given | {name: tuple(given[name]) for name in ("parts", "only")}))
    setting = Setting(device=order.device, tiny=order.tiny)
    if order.device == "cuda" and not torch.cuda.is_available():
        print(
            "device: cuda, but torch finds no GPU; `--device cpu` shows that the script runs", file=sys.stderr
        )
        return 2
    if order.limits:
        tell(limits=asdict(measure_limits(setting)))
    units = [
        unit
        for part in order.parts
        for unit in units_of(part, setting)
        if not order.only or unit.row.kernel in order.only
    ]
    tell(plan=[unit.row.as_dict() for unit in units])
    for number, unit in enumerate(units[order.skip :], start=order.skip):
        if time.time() > order.deadline:
            tell(row=replace(unit.row, note=OUT_OF_TIME).as_dict(), number=number)
            continue
        tell(begin=number)
        tell(row=unit.measure().as_dict(), number=number)
        if gpu_is_lost(order.device):
            return GPU_LOST
    return 0


if __name__ == "__main__":
    sys.exit(main())
