"""What a stage's body says while it runs: one small object, whatever process the body runs in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Workspace:
    """Where a body writes. `data` and `logs` are published; `checkpoints` survive a crash, then go.

    `kept` is there for a stage that declares `keeps`: a folder of that stage that outlives every artifact.
    """

    data: Path
    checkpoints: Path
    logs: Path
    kept: Path | None = None


@dataclass(frozen=True)
class Report:
    """Sends events, each a JSON-ready dictionary with a `type`, to whoever launched the body."""

    emit: Callable[[dict[str, Any]], None]

    def log(self, message: str) -> None:
        """A line for a person."""
        self.emit({"type": "log", "message": message})

    def progress(self, done: int, total: int | None, unit: str) -> None:
        """How far long work has come, in `unit` (rows, steps, shards)."""
        self.emit({"type": "progress", "done": done, "total": total, "unit": unit})

    def step(self, step: int, **metrics: float) -> None:
        """Metrics of one training step."""
        self.emit({"type": "step", "step": step, "metrics": metrics})

    def checkpoint(self, at: str) -> None:
        """A killed run can go on from here: `step 120 of 480`."""
        self.emit({"type": "checkpoint", "at": at})

    def summary(self, **metrics: Scalar) -> None:
        """Figures of the whole stage: kept in the manifest and printed by `run --json`. Later calls add."""
        self.emit({"type": "summary", "metrics": metrics})

    def suspects(self, of: str, rows: Sequence[int]) -> None:
        """The rows of the input `of`, counted from 0, that a failure is about, before it is raised.

        Whoever launched the body adds to its error from which lines of which files they come.
        """
        self.emit({"type": "suspects", "input": of, "rows": list(rows)})

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Scalar]]) -> None:
        """A small table for the report and the asset's metadata; a later one of the same title takes its place."""
        self.emit(
            {"type": "table", "title": title, "columns": list(columns), "rows": [list(r) for r in rows]}
        )

    def plot(
        self,
        title: str,
        x: Sequence[float],
        y: Sequence[float],
        *,
        x_label: str,
        y_label: str,
        bars: bool = False,
    ) -> None:
        """A line plot (or bars, for histograms) for the report and the asset's metadata."""
        self.emit(
            {
                "type": "plot",
                "title": title,
                "x": list(x),
                "y": list(y),
                "x_label": x_label,
                "y_label": y_label,
                "bars": bars,
            }
        )
