"""Progress on long work: a live display in a terminal, plain lines elsewhere. Always on stderr."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

from tunemill.pipelines.run.activity import Activities, Activity, figures, line_of, readable_seconds

PLAIN_SECONDS = 10.0
# What terminals without a cursor call themselves.
WITHOUT_CURSOR = ("", "dumb", "unknown")


class Display(Protocol):
    """An observer of a run that remembers what it has heard."""

    activities: Activities

    def __call__(self, node: str, event: dict[str, Any]) -> None: ...


@contextmanager
def show_progress() -> Iterator[Display]:
    """A display of a run on stderr, live where that is a terminal."""
    if not sys.stderr.isatty() or os.environ.get("TERM", "") in WITHOUT_CURSOR:
        yield PlainLines(sys.stderr)
        return
    # Only a terminal pays for the import.
    from tunemill.pipelines.run.live_display import show_frames

    with show_frames() as frames:
        yield frames


class PlainLines:
    """A line for each event; progress of one node at most every ten seconds."""

    def __init__(self, file: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._clock = clock
        self._said: dict[str, float] = {}
        self.activities = Activities(clock)

    def __call__(self, node: str, event: dict[str, Any]) -> None:
        activity = self.activities.hear(node, event)
        if event["type"] in ("progress", "step"):
            if self._due(node):
                self._say(f"{node}: {'; '.join(words_of(activity, self._clock()))}")
        elif event["type"] == "start":
            self._say(f"{node}: started")
        elif (line := line_of(node, event)) is not None:
            self._say(line)

    def _say(self, line: str) -> None:
        print(line, file=self._file, flush=True)

    def _due(self, node: str) -> bool:
        now = self._clock()
        due = now - self._said.get(node, now - PLAIN_SECONDS) >= PLAIN_SECONDS
        if due:
            self._said[node] = now
        return due


def words_of(activity: Activity, now: float) -> list[str]:
    """The same on a line of a log."""
    left = activity.seconds_left(now)
    parts = [activity.place, figures(activity.figures)]
    return [part for part in parts if part] + ([f"{readable_seconds(left)} left"] if left is not None else [])
