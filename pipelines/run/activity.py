"""What is known of nodes while they run, from their events, and how it is said."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# The time left is told from the pace of the last samples, so that a slow start does not weigh for ever.
PACE_SAMPLES = 20


@dataclass
class Activity:
    """A node that runs: how far it is, its last figures, its last checkpoint."""

    node: str
    done: int | None = None
    total: int | None = None
    unit: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    checkpoint: str | None = None
    started: float | None = None
    # Replaced and never changed: a display reads it from another thread.
    _samples: tuple[tuple[float, int], ...] = ()

    def hear(self, event: dict[str, Any], now: float) -> None:
        """Take in an event that came at `now` (seconds of a clock that only goes forward)."""
        if self.started is None:
            self.started = now
        match event["type"]:
            case "progress":
                other = event["unit"] != self.unit or event["done"] < (self.done or 0)
                before = () if other else self._samples[1 - PACE_SAMPLES :]
                self.done, self.total, self.unit = event["done"], event["total"], event["unit"]
                self._samples = (*before, (now, event["done"]))
            case "step":
                self.figures |= event["metrics"]
            case "checkpoint":
                self.checkpoint = event["at"]

    def seconds_left(self, now: float) -> float | None:
        """An estimate; None while the pace or the total is unknown."""
        samples = self._samples
        if not self.total or len(samples) < 2:
            return None
        (first, before), (last, done) = samples[0], samples[-1]
        if done <= before or last <= first:
            return None
        return max(0.0, (self.total - done) * (last - first) / (done - before) - (now - last))

    @property
    def place(self) -> str:
        """How far it is: `120/480 steps`; empty while unknown."""
        if self.done is None:
            return ""
        return f"{self.done}/{self.total} {self.unit}" if self.total else f"{self.done} {self.unit}"


class Activities:
    """The nodes that run now and those that failed, by name."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.running: dict[str, Activity] = {}
        self.failed: dict[str, Activity] = {}

    def hear(self, node: str, event: dict[str, Any]) -> Activity:
        """Take in an event of a node."""
        activity = self.running.setdefault(node, Activity(node))
        activity.hear(event, self._clock())
        if event["type"] in ("done", "failure"):
            del self.running[node]
        if event["type"] == "failure":
            self.failed[node] = activity
        return activity


def readable_seconds(seconds: float) -> str:
    """`0:07`, `1:12:03`, `2 d 03:00`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour:02}:{minute:02}"
    return f"{hour}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def figures(metrics: dict[str, float]) -> str:
    """Metrics in a few words."""
    return " ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def line_of(node: str, event: dict[str, Any]) -> str | None:
    """The line that stays of an event, if any."""
    match event["type"]:
        case "log":
            return f"{node}: {event['message']}"
        case "failure":
            return f"{node}: FAILED: {event['message']}"
        case "done":
            return f"{node}: {event['state']} in {event['seconds']:.1f} s"
        case _:
            return None
