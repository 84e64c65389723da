"""Progress on long work: a live display in a terminal, plain lines elsewhere. Always on stderr."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from tunemill.pipelines.run.activity import Activities, Activity, readable_seconds

PLAIN_SECONDS = 10.0
FRAMES_PER_SECOND = 4
# Below this width only what matters most is shown: node, place, loss, time left.
WIDE_COLUMNS = 110
BAR_WIDTH = 20


class Display(Protocol):
    """An observer of a run that remembers what it has heard."""

    activities: Activities

    def __call__(self, node: str, event: dict[str, Any]) -> None: ...


@contextmanager
def show_progress() -> Iterator[Display]:
    """A display of a run on stderr, live where that is a terminal."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield PlainLines(console)
        return
    frames = Frames(console)
    with Live(
        get_renderable=frames.frame, console=console, refresh_per_second=FRAMES_PER_SECOND, transient=True
    ):
        yield frames


class PlainLines:
    """A line for each event; progress of one node at most every ten seconds."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._said: dict[str, float] = {}
        self.activities = Activities(clock)

    def __call__(self, node: str, event: dict[str, Any]) -> None:
        activity = self.activities.hear(node, event)
        if event["type"] == "start":
            say(self._console, node, "started")
        elif event["type"] in ("progress", "step") and self._due(node):
            say(self._console, node, "; ".join(words_of(activity, self._clock())))
        else:
            say_event(self._console, node, event)

    def _due(self, node: str) -> bool:
        now = self._clock()
        due = now - self._said.get(node, now - PLAIN_SECONDS) >= PLAIN_SECONDS
        if due:
            self._said[node] = now
        return due


class Frames:
    """A line for each node that runs, drawn again and again; what is over becomes a line above that stays."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._spinner = Spinner("dots")
        self._heard = False
        self.activities = Activities(clock)

    def __call__(self, node: str, event: dict[str, Any]) -> None:
        self._heard = True
        self.activities.hear(node, event)
        say_event(self._console, node, event)

    def frame(self) -> Table:
        """The nodes that run now, in the width of the terminal."""
        now, width = self._clock(), self._console.width
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(12, width // 3))
        for _ in range(5):
            table.add_column(no_wrap=True, overflow="ellipsis")
        spinner = self._spinner.render(now)
        if not self._heard:
            table.add_row(Text.assemble(str(spinner), " looking at sources and store"))
        for activity in list(self.activities.running.values()):
            table.add_row(Text(f"{spinner} {activity.node}"), *cells_of(activity, now, width))
        return table


def cells_of(activity: Activity, now: float, width: int) -> Sequence[Text | ProgressBar]:
    """What is shown of a node beside its name; in a narrow terminal only what matters most."""
    left = activity.seconds_left(now)
    shown = [
        Text(activity.place or "…"),
        Text(f"loss {activity.figures['loss']:.4g}" if "loss" in activity.figures else ""),
        Text(f"{readable_seconds(left)} left" if left is not None else elapsed(activity, now)),
    ]
    if width < WIDE_COLUMNS:
        return shown
    bar = ProgressBar(activity.total, activity.done or 0, width=BAR_WIDTH, pulse=activity.total is None)
    others = {name: value for name, value in activity.figures.items() if name != "loss"}
    return [shown[0], bar, *shown[1:], Text(figures(others), style="dim")]


def words_of(activity: Activity, now: float) -> list[str]:
    """The same on a line of a log."""
    left = activity.seconds_left(now)
    parts = [activity.place, figures(activity.figures)]
    return [part for part in parts if part] + ([f"{readable_seconds(left)} left"] if left is not None else [])


def figures(metrics: dict[str, float]) -> str:
    """Metrics in a few words."""
    return " ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def elapsed(activity: Activity, now: float) -> str:
    """Since when it runs, in words."""
    return f"{readable_seconds(now - activity.started)} so far" if activity.started is not None else ""


def say_event(console: Console, node: str, event: dict[str, Any]) -> None:
    """The line that stays of an event, if any."""
    match event["type"]:
        case "log":
            say(console, node, event["message"])
        case "failure":
            say(console, node, f"FAILED: {event['message']}")
        case "done":
            say(console, node, f"{event['state']} in {event['seconds']:.1f} s")


def say(console: Console, node: str, text: str) -> None:
    """One line, whatever is in it."""
    console.print(f"{node}: {text}", markup=False, soft_wrap=True)
