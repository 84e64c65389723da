"""Shows rows as they are measured: a bar on a terminal where rich is installed, plain lines elsewhere."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import TracebackType
from typing import Any

from benchmarks.kernels.row import Row


class Progress:
    """A context; `plan` adds units to the total, `row` says that one is done."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.task: Any = None
        self.total = 0
        self.done = 0

    def __enter__(self) -> Progress:
        if sys.stdout.isatty() and find_spec("rich"):
            from rich.progress import Progress as Bar

            self.bar = Bar()
            self.bar.start()
            self.task = self.bar.add_task("measuring", total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def plan(self, units: int) -> None:
        """A process has told its plan; one that takes the place of a lost one tells the same again."""
        self.total = max(self.total, self.done + units)

    def row(self, row: Row) -> None:
        """One unit is done."""
        self.done += 1
        if self.bar is None:
            print(line(row), flush=True)
            return
        self.bar.console.print(line(row), highlight=False, markup=False)
        self.bar.update(self.task, completed=self.done, total=max(self.total, self.done))


def line(row: Row) -> str:
    """A row for people who wait."""
    times = [f"{value:.3f} ms" for value in (row.forward_ms, row.both_ms) if value is not None]
    parts = [row.kernel, row.shape, row.dtype, row.way, " / ".join(times), row.note]
    return "  ".join(part for part in parts if part)
