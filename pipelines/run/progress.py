"""Progress on long work: bars in a terminal, plain lines elsewhere. Always on stderr."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from tunemill.pipelines.run.observer import Observer

PLAIN_SECONDS = 10.0


@contextmanager
def show_progress() -> Iterator[Observer]:
    """An observer of a run that shows what happens while it happens."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield PlainLines(console)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield Bars(progress)


def one_line(event: dict[str, Any]) -> str:
    """A step event in a few words."""
    return " ".join(f"{name} {value:.4g}" for name, value in event["metrics"].items())


class PlainLines:
    """A line for each event; progress of one node at most every ten seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: dict[str, float] = {}

    def __call__(self, node: str, event: dict[str, Any]) -> None:
        match event["type"]:
            case "start":
                self._say(node, "started")
            case "log":
                self._say(node, event["message"])
            case "failure":
                self._say(node, f"FAILED: {event['message']}")
            case "done":
                self._say(node, f"{event['state']} in {event['seconds']:.1f} s")
            case "progress" if self._due(node):
                self._say(node, f"{event['done']}/{event['total'] or '?'} {event['unit']}")
            case "step" if self._due(f"{node} step"):
                self._say(node, f"step {event['step']}: {one_line(event)}")

    def _say(self, node: str, text: str) -> None:
        self._console.print(f"{node}: {text}", markup=False, soft_wrap=True)

    def _due(self, what: str) -> bool:
        now = time.monotonic()
        due = now - self._said.get(what, now - PLAIN_SECONDS) >= PLAIN_SECONDS
        if due:
            self._said[what] = now
        return due


class Bars:
    """One bar for each node that runs."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, node: str, event: dict[str, Any]) -> None:
        task = self._tasks.get(node)
        if task is None:
            task = self._tasks[node] = self._progress.add_task(node, total=None, note="")
        match event["type"]:
            case "log":
                self._progress.console.print(f"{node}: {event['message']}", markup=False)
            case "failure":
                self._progress.update(task, note="failed", total=1)
            case "progress":
                self._progress.update(task, completed=event["done"], total=event["total"], note=event["unit"])
            case "step":
                self._progress.update(task, note=one_line(event))
            case "done":
                self._progress.update(task, completed=1, total=1, note=event["state"])
