"""A sweep while it runs, on stderr: a table of its points in a terminal, a line for each event elsewhere."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

from tunemill.pipelines.run.progress import WITHOUT_CURSOR, PlainLines
from tunemill.pipelines.run.sweep import PointRun
from tunemill.pipelines.run.sweep_events import is_cached


class SweepDisplay(Protocol):
    """Hears of points, their nodes and events of these; and of each point when nothing more becomes of it."""

    def __call__(self, point: str, node: str, event: dict[str, Any]) -> None: ...

    def ended(self, point: PointRun) -> None:
        """Nothing more becomes of a point."""


@contextmanager
def show_sweep(points: Sequence[str]) -> Iterator[SweepDisplay]:
    """A display of these points."""
    if not sys.stderr.isatty() or os.environ.get("TERM", "") in WITHOUT_CURSOR:
        yield PlainSweep(sys.stderr)
        return
    # Only a terminal pays for the import.
    from tunemill.pipelines.run.sweep_table import show_table

    with show_table(points) as table:
        yield table


class PlainSweep:
    """Lines that begin with the point and its node. What was there already is not told."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lines = PlainLines(file)

    def __call__(self, point: str, node: str, event: dict[str, Any]) -> None:
        if event["type"] == "stopped":
            print(f"{point}: stopped: {event['message']}", file=self._file, flush=True)
        elif event["type"] != "curve" and not is_cached(event):
            self._lines(f"{point}/{node}", event)

    def ended(self, point: PointRun) -> None:
        """One line; a point that was stopped has its own already."""
        if point.state != "stopped":
            why = f": {point.why}" if point.why else ""
            print(f"{point.name}: {point.state}{why}", file=self._file, flush=True)
