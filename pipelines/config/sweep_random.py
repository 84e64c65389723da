"""Points of a sweep that are drawn: `kind: random`. The same seed draws the same ones, and more draws add to them."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

KIND, DRAWS, SEED = "kind", "draws", "draw_seed"
# What stands beside the keys of a grid and is none.
OWN_KEYS = (KIND, DRAWS, SEED)
GRID, RANDOM = "grid", "random"
ENDS = ("min", "max")
# Digits of a drawn number: more make no other model, and names that nobody can read.
DIGITS = 4
# A point that is there already is drawn again, so often for each that is asked for.
TRIES = 100

Part = TypeVar("Part")


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, both among them, all of them as likely, or all orders of size with `log`."""

    low: int | float
    high: int | float
    log: bool = False

    def at(self, share: float) -> int | float:
        """The number at a share of the range, from 0 up to 1; a whole one where both ends are."""
        is_whole = isinstance(self.low, int) and isinstance(self.high, int)
        # Half of a whole number on each side belongs to it.
        low, high = (self.low - 0.5, self.high + 0.5) if is_whole else (self.low, self.high)
        if self.log:
            value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            value = low + share * (high - low)
        made = round(value) if is_whole else float(f"{value:.{DIGITS}g}")
        return min(max(made, self.low), self.high)


def range_of(value: Mapping[str, Any]) -> Range:
    """The range that a mapping says. Raises ValueError with what is wrong with it."""
    unknown = [name for name in value if name not in (*ENDS, "log")]
    low, high = (value.get(end) for end in ENDS)
    if unknown or not all(_is_number(end) for end in (low, high)):
        raise ValueError("a range is {min: NUMBER, max: NUMBER}, and log: true where orders of size count")
    assert isinstance(low, int | float) and isinstance(high, int | float)
    log = value.get("log", False)
    if not isinstance(log, bool):
        raise ValueError("log: must be true or false")
    if low >= high:
        raise ValueError("max must be above min")
    if log and low <= 0:
        raise ValueError("with log: true min must be above 0")
    return Range(low, high, log)


def is_range(value: Any) -> bool:
    """Whether it is meant as a range, right or wrong."""
    return isinstance(value, dict) and any(end in value for end in ENDS)


def drawn(
    axes: Mapping[str, Callable[[float], Part]],
    count: int,
    seed: int,
    identity: Callable[[Sequence[Part]], Hashable],
) -> list[tuple[Part, ...]]:
    """So many points that differ, or as many as there are.

    An axis gives its part at a share from 0 up to 1. What is drawn of one depends on its name and the seed alone.
    """
    found: dict[Hashable, tuple[Part, ...]] = {}
    for number in range(count * TRIES):
        if len(found) == count:
            break
        # No secret: the same seed is to draw the same.
        point = tuple(at(Random(f"{seed} {number} {name}").random()) for name, at in axes.items())  # noqa: S311
        found.setdefault(identity(point), point)
    return list(found.values())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
