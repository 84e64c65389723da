"""What is looked at of a result that is there: pure functions of its figures, which no result depends on.

A stage's declaration lists its checks. Each gets the metrics of a manifest, so what was computed long ago is checked
too; nothing is computed again. A check that fails says what to do. It is a warning, unless what it saw proves the
result wrong.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Seen:
    """What a check saw, with its figures; `advice` says what to do, and is there only where the check failed.

    `is_wrong`: what was seen proves that the result is wrong, where else it is only suspicious.
    """

    text: str
    advice: str | None = None
    is_wrong: bool = False

    @property
    def passed(self) -> bool:
        return self.advice is None


@dataclass(frozen=True)
class Check:
    """One look at the figures of an artifact.

    `look` gives None where they say nothing of it: those of an older version, or of settings that ask for none of it.
    `question` is what a person reads: what is asked, with the bound and its reason.
    """

    name: str
    question: str
    look: Callable[[Figures], Seen | None]


def number(figures: Figures, name: str) -> float | None:
    """A figure that is a number; a damaged or foreign one is none."""
    value = figures.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def share_at_most(
    name: str,
    most: float,
    counted: Sequence[str],
    of: Sequence[str],
    what: str,
    *,
    reason: str,
    advice: str,
    unwritten: bool = False,
) -> Check:
    """The rows in question, which are the sum of the figures `counted`, are at most the share `most` of all.

    All rows are the sum of the figures `of`. A figure that is not there counts as 0; where all of `counted` are
    missing nothing is known, but for figures that are `unwritten` where they would be 0.
    """

    def look(figures: Figures) -> Seen | None:
        parts = [part for key in counted if (part := number(figures, key)) is not None]
        rows = sum(number(figures, key) or 0 for key in of)
        if rows <= 0 or not (parts or unwritten):
            return None
        found = sum(parts)
        text = f"{found:.0f} of {rows:.0f} {what} ({found / rows:.1%}; at most {most:.0%})"
        return Seen(text, advice if found > most * rows else None)

    return Check(name, f"Of all, at most {most:.0%} are {what}. {reason}", look)


def none_of(name: str, counted: str, of: str, what: str, *, reason: str, advice: str) -> Check:
    """There is no row of this kind among those that the figure `of` counts; no figure of it means none."""

    def look(figures: Figures) -> Seen | None:
        rows, found = number(figures, of), number(figures, counted) or 0
        if rows is None:
            return None
        return Seen(f"{found:.0f} of {rows:.0f} {what}", advice if found else None)

    return Check(name, f"No {what}. {reason}", look)


def within(name: str, value: str, bound: str, what: str, *, reason: str, advice: str) -> Check:
    """The figure `value` is no larger than the figure `bound`: of what the stage has proven itself, the figures."""

    def look(figures: Figures) -> Seen | None:
        found, most = number(figures, value), number(figures, bound)
        if found is None or most is None:
            return None
        is_fine = math.isfinite(found) and found <= most
        return Seen(f"{what} {found:.4g} (at most {most:.4g})", None if is_fine else advice, is_wrong=True)

    return Check(name, f"{what} is within its bound. {reason}", look)


def all_finite(name: str, what: str, advice: str) -> Check:
    """No figure of the artifact is infinite or not a number."""

    def look(figures: Figures) -> Seen | None:
        numbers = {key: found for key in figures if (found := number(figures, key)) is not None}
        if not numbers:
            return None
        broken = [key for key, found in numbers.items() if not math.isfinite(found)]
        text = f"{', '.join(broken)} of {what}: infinite or not a number" if broken else f"{what}: all finite"
        return Seen(text, advice if broken else None, is_wrong=True)

    return Check(
        name, f"Every figure of {what} is a finite number: of one that is not nothing follows.", look
    )
