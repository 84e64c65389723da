"""The live display of a run in a terminal: a line for each node that runs."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from tunemill.pipelines.run.activity import Activities, Activity, figures, line_of, readable_seconds

FRAMES_PER_SECOND = 4
# Below this width only what matters most is shown: node, place, loss, time left.
WIDE_COLUMNS = 110
BAR_WIDTH = 20


@contextmanager
def show_frames() -> Iterator["Frames"]:
    """Draw on stderr until the end of the context; then the lines of running nodes go."""
    console = Console(stderr=True, highlight=False)
    frames = Frames(console)
    with Live(
        get_renderable=frames.frame, console=console, refresh_per_second=FRAMES_PER_SECOND, transient=True
    ):
        yield frames


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
        if (line := line_of(node, event)) is not None:
            self._console.print(line, markup=False, soft_wrap=True)

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


def elapsed(activity: Activity, now: float) -> str:
    """Since when it runs, in words."""
    return f"{readable_seconds(now - activity.started)} so far" if activity.started is not None else ""
