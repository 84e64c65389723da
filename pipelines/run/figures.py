"""Figures as people read them."""

import math
from collections.abc import Mapping
from typing import Any

# Figures of this size and above are shown without decimals.
WHOLE_FROM = 1000


def figure(value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return ""
    if not isinstance(value, float) or not math.isfinite(value):
        return str(value)
    return f"{value:.0f}" if abs(value) >= WHOLE_FROM else f"{value:.4g}"


def count_of(number: int, one: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{number} {one}" if number == 1 else f"{number} {one}s"


def with_interval(value: Any, interval: Mapping[str, Any] | None) -> Any:
    """`0.91 (0.86 to 0.94)`: a score and its interval, if it has one that is wide enough to see."""
    if interval is None or interval["low"] == interval["high"]:
        return value
    return f"{figure(value)} ({interval['low']:.3g} to {interval['high']:.3g})"


def duration(seconds: float) -> str:
    """`0.4 s`, `2 min 5 s`, `3 h 20 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = int(seconds) // 60
    return f"{minutes} min {int(seconds) % 60} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def step_words(event: Mapping[str, Any]) -> str:
    """`step 40: loss 0.2592, learning_rate 0.001057` of the event of a step."""
    shown = (f"{name} {figure(value)}" for name, value in event["metrics"].items())
    return f"step {event['step']}: {', '.join(shown)}"
