"""`split: train[10%:90%]+test`: which rows are taken, in the notation of the `datasets` library."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from tunemill.stages.errors import SettingError

PATTERN = re.compile(
    r"(?P<name>\w+(\.\w+)*)"
    r"(\[(?P<start>-?[\d_]+%?)?:(?P<stop>-?[\d_]+%?)?\])?"
    r"(\((?P<rounding>closest|pct1_dropremainder)\))?"
)
# Percentages of this rounding are multiples of a hundredth of the rows.
WHOLE_HUNDREDTHS = "pct1_dropremainder"
EXAMPLES = '"train", a slice of it such as "train[:100]" or "train[10%:]", or a sum such as "train[:10]+test"'


@dataclass(frozen=True)
class Part:
    """A slice of one split. Bounds are row numbers, or percentages with `percent`; `None` is open."""

    text: str
    name: str
    start: int | None = None
    stop: int | None = None
    percent: bool = False
    rounding: str = "closest"

    @property
    def needs_count(self) -> bool:
        """Whether its rows can only be told after counting those of the split."""
        return self.percent or any(bound is not None and bound < 0 for bound in (self.start, self.stop))


@dataclass(frozen=True)
class Range:
    """Rows `start` up to `stop` (exclusive; None: to the end) of the split `name`."""

    name: str
    start: int
    stop: int | None


def parse_split(text: str) -> tuple[Part, ...]:
    """The parts of a split. Raises ValueError saying what is wrong with it."""
    return tuple(_parse_part(text, item.strip()) for item in text.split("+"))


def _parse_part(text: str, item: str) -> Part:
    match = PATTERN.fullmatch(item.replace(" ", ""))
    if match is None:
        raise ValueError(f"split: {text!r} is not a split; write {EXAMPLES}")
    given = [bound for bound in (match["start"], match["stop"]) if bound is not None]
    percents = {bound.endswith("%") for bound in given}
    if len(percents) == 2:
        raise ValueError(f"split: {text!r} mixes rows and percent in one slice; use one of them")
    percent = percents == {True}
    start, stop = (
        None if bound is None else int(bound.rstrip("%")) for bound in (match["start"], match["stop"])
    )
    if percent and any(abs(bound) > 100 for bound in (start, stop) if bound is not None):
        raise ValueError(f"split: {text!r} asks for more than 100%")
    if match["rounding"] and not percent:
        raise ValueError(f"split: {text!r} rounds, but has no percentages to round")
    return Part(item, match["name"], start, stop, percent, match["rounding"] or "closest")


def choose_ranges(parts: tuple[Part, ...], length: Callable[[str], int]) -> list[Range]:
    """The rows that are taken, in order. `length` counts the rows of a split: only asked where that is needed."""
    return [_range(part, length) for part in parts]


def count_rows(ranges: list[Range], length: Callable[[str], int]) -> int:
    """How many rows there are in all ranges."""
    total = 0
    for item in ranges:
        rows = length(item.name)
        stop = rows if item.stop is None else min(item.stop, rows)
        total += max(stop - item.start, 0)
    return total


def _range(part: Part, length: Callable[[str], int]) -> Range:
    if part.needs_count:
        return _counted(part, length(part.name))
    start = part.start or 0
    return Range(part.name, start, None if part.stop is None else max(start, part.stop))


def _counted(part: Part, rows: int) -> Range:
    """First row and the row after the last; what lies beyond the rows is cut off, as in the library."""

    def absolute(bound: int | None, default: int) -> int:
        if bound is None:
            return default
        if part.percent and part.rounding == WHOLE_HUNDREDTHS:
            if rows < 100:
                raise SettingError(
                    f"split: {part.text} takes whole hundredths, but {part.name} has {rows} rows: none would be left; "
                    "leave the rounding away"
                )
            bound = bound * math.trunc(rows / 100)
        elif part.percent:
            bound = round(bound * rows / 100)
        return max(bound + rows, 0) if bound < 0 else min(bound, rows)

    start, stop = absolute(part.start, 0), absolute(part.stop, rows)
    return Range(part.name, start, max(start, stop))
