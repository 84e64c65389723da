"""A sweep while it runs, on stderr: a table of its points in a terminal, a line for each event elsewhere."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

from tunemill.pipelines.run.activity import line_of
from tunemill.pipelines.run.progress import WITHOUT_CURSOR, PlainLines
from tunemill.pipelines.run.sweep import PointRun


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


def is_cached(event: dict[str, Any]) -> bool:
    """Whether the event only says that a node was there already."""
    return event["type"] == "done" and event["state"] in ("cached", "pinned", "left alone")


def line_of_point(point: str, node: str, event: dict[str, Any]) -> str | None:
    """The line that stays of an event, if any."""
    return None if is_cached(event) or event["type"] == "curve" else line_of(f"{point}/{node}", event)
