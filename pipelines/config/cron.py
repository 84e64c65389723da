"""Times as cron writes them: what is wrong with a line. Dagster's own parser costs the import of all of Dagster.

What is taken here is the part on which cron, Dagster and its daemon agree: lists, ranges, steps and names in five
fields. `tests/pipelines/config/test_cron.py` compares the two.
"""

import calendar
import re
from dataclasses import dataclass
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from tunemill.stages.choices import nearest

NICKNAMES = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
EXAMPLE = "Write five fields, such as 0 3 * * 1-5: at 3:00 from Monday to Friday"
LEAP_YEAR = 2024


@dataclass(frozen=True)
class Part:
    """One of the five fields: its name, its bounds, and the words for its numbers."""

    name: str
    low: int
    high: int
    words: tuple[str, ...] = ()


PARTS = (
    Part("minute", 0, 59),
    Part("hour", 0, 23),
    Part("day of the month", 1, 31),
    Part("month", 1, 12, tuple(name.lower() for name in calendar.month_abbr)),
    Part("day of the week", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)
ITEM = re.compile(r"(?P<first>\*|\d{1,2}|[a-z]{3})(-(?P<last>\d{1,2}|[a-z]{3}))?(/(?P<step>\d{1,2}))?")


def fault_of_cron(text: str) -> str | None:
    """What is wrong with a line of cron, and None where a time fits it."""
    fields = text.lower().split()
    if len(fields) == 1 and fields[0].startswith("@"):
        return None if fields[0] in NICKNAMES else f"there is no {text}, only {', '.join(NICKNAMES)}"
    if len(fields) != len(PARTS):
        return f"cron has five fields, and these are {len(fields)}. {EXAMPLE}"
    meant: list[set[int]] = []
    for part, field in zip(PARTS, fields, strict=True):
        found = _numbers(part, field)
        if isinstance(found, str):
            return f"{part.name}: {found}. {EXAMPLE}"
        meant.append(found)
    _, _, days, months, _ = meant
    if not any(min(days) <= _days(month) for month in months):
        return f"no month that is named has a day {min(days)}"
    return None


def fault_of_timezone(name: str) -> str | None:
    """What is wrong with the name of a time zone."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        near = nearest(name, sorted(available_timezones()))
        meant = f"; did you mean {near[0]}?" if near else ""
        return (
            f"there is no time zone {name}{meant}. Write a name of the IANA database, such as Europe/Berlin"
        )
    return None


def _numbers(part: Part, field: str) -> set[int] | str:
    """The numbers that a field means, or what is wrong with it."""
    found: set[int] = set()
    for item in field.split(","):
        match = ITEM.fullmatch(item)
        if match is None or (match["first"] == "*" and match["last"] is not None):
            return f"{item or 'nothing'} is no number, range or step"
        first, last = match["first"], match["last"]
        low = part.low if first == "*" else _number(part, first)
        high = part.high if first == "*" else _number(part, last or first)
        if low is None or high is None:
            return f"{item} is not between {part.low} and {part.high}"
        if match["step"] is not None and first != "*" and last is None:
            return f"{item}: a step goes with * or with a range, such as */{match['step']}"
        if low > high:
            return f"{item} ends before it begins"
        step = int(match["step"] or 1)
        if not 1 <= step <= max(part.high, 1):
            return f"{item}: a step is between 1 and {part.high}"
        found |= set(range(low, high + 1, step))
    return found


def _number(part: Part, word: str) -> int | None:
    """The number of a word; None where it is none of this field."""
    if word.isdigit():
        return int(word) if part.low <= int(word) <= part.high else None
    return part.words.index(word) if word in part.words and word else None


def _days(month: int) -> int:
    return calendar.monthrange(LEAP_YEAR, month)[1]
