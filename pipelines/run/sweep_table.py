"""The live table of a sweep in a terminal: a line for each point, drawn again and again."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tunemill.pipelines.run.activity import Activity, readable_seconds
from tunemill.pipelines.run.live_display import FRAMES_PER_SECOND
from tunemill.pipelines.run.sweep import PointRun
from tunemill.pipelines.run.sweep_events import line_of_point
from tunemill.resources.protocols import HELD_OUT_LOSS, LOSS

COLOURS = {
    "finished": "green",
    "stopped": "yellow",
    "failed": "red",
    "not finished": "red",
    "running": "cyan",
}


@contextmanager
def show_table(points: Sequence[str]) -> Iterator["LiveTable"]:
    """Draw on stderr until the end of the context; then the table goes, for the outcome follows."""
    console = Console(stderr=True, highlight=False)
    table = LiveTable(points, console)
    with Live(
        get_renderable=table.frame, console=console, refresh_per_second=FRAMES_PER_SECOND, transient=True
    ):
        yield table


class LiveTable:
    """What is known of each point: its state, its node that runs, the losses of its training."""

    def __init__(
        self, points: Sequence[str], console: Console, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console, self._clock = console, clock
        self._states: dict[str, tuple[str, str]] = dict.fromkeys(points, ("waiting", ""))
        self._running: dict[str, Activity] = {}
        self._losses: dict[str, dict[str, float]] = {point: {} for point in points}

    def __call__(self, point: str, node: str, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind == "stopped":
            self._states[point] = ("stopped", event["message"])
            self._running.pop(point, None)
        elif kind == "curve":
            curve = event["curve"]
            for name, told in ((LOSS, curve.loss), (HELD_OUT_LOSS, curve.held_out)):
                if told:
                    self._losses[point][name] = told[max(told)]
        elif kind in ("done", "failure"):
            self._running.pop(point, None)
            if kind == "failure":
                self._states[point] = ("failed", node)
        else:
            if self._states[point][0] != "failed":
                self._states[point] = ("running", "")
            activity = self._running.get(point)
            if activity is None or activity.node != node:
                activity = self._running[point] = Activity(node)
            activity.hear(event, self._clock())
            if kind == "step":
                told = event["metrics"]
                self._losses[point] |= {name: told[name] for name in (LOSS, HELD_OUT_LOSS) if name in told}
        line = line_of_point(point, node, event)
        if line is not None and kind == "failure":
            self._console.print(line, markup=False, soft_wrap=True)

    def ended(self, point: PointRun) -> None:
        """Its state stays."""
        self._running.pop(point.name, None)
        self._states[point.name] = (point.state, point.why)

    def frame(self) -> Table:
        """The points in the width of the terminal; of more than fit, those that run and the first others."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for heading in ("point", "state", "node", "place", LOSS, HELD_OUT_LOSS, "left"):
            table.add_column(heading, no_wrap=True, overflow="ellipsis")
        now = self._clock()
        for point in self._shown():
            state, why = self._states[point]
            activity = self._running.get(point)
            losses = [
                f"{self._losses[point][name]:.4g}" if name in self._losses[point] else ""
                for name in (LOSS, HELD_OUT_LOSS)
            ]
            left = None if activity is None else activity.seconds_left(now)
            table.add_row(
                point,
                Text(state, style=COLOURS.get(state, "dim")),
                why if activity is None else activity.node,
                "" if activity is None else activity.place,
                *losses,
                "" if left is None else readable_seconds(left),
            )
        return table

    def _shown(self) -> list[str]:
        room = max(3, self._console.height - 3)
        if len(self._states) <= room:
            return list(self._states)
        first = [*self._running, *(point for point in self._states if point not in self._running)][:room]
        return [point for point in self._states if point in first]
