"""Errors that a person can mend: bad rows, bad files, settings that cannot be honoured."""

from collections.abc import Sequence
from dataclasses import dataclass


class UserError(ValueError):
    """What was given, which rule it breaks, and how to mend it. Shown without a traceback."""


class RowError(UserError):
    """A row of a dataset cannot be used."""


class SourceError(UserError):
    """Something that the config names cannot be read."""


@dataclass(frozen=True)
class RowPlace:
    """Where a row stands: its number in `file` (from 1); `unit` says what the number counts: line or row."""

    file: str
    unit: str
    number: int

    def __str__(self) -> str:
        return (
            f"{self.file}:{self.number}" if self.unit == "line" else f"{self.file}, {self.unit} {self.number}"
        )


@dataclass(frozen=True)
class RowOf:
    """A row of another stage's artifact: number `row`, from 0, of artifact number `index`, from 0, of an input."""

    input: str
    index: int
    row: int


class SettingError(UserError):
    """A setting cannot be honoured with these inputs or on this machine."""


@dataclass
class BadReason:
    """Why rows cannot be used: the first places of those of one reason, and how many there are."""

    reason: str
    places: list[RowPlace]
    count: int

    def __str__(self) -> str:
        return f"{places_text(self.places, self.count)}: {self.reason}"


def places_text(places: Sequence[RowPlace], count: int) -> str:
    """`rows.jsonl:1, 2 and 5 more`: the first places of `count` rows, with each file named once."""
    files: dict[tuple[str, str], list[RowPlace]] = {}
    for place in places:
        files.setdefault((place.file, place.unit), []).append(place)
    texts = [_in_one_file(group) for group in files.values()]
    more = f" and {count - len(places)} more" if count > len(places) else ""
    return "; ".join(texts) + more


def _in_one_file(places: Sequence[RowPlace]) -> str:
    first = places[0]
    if len(places) > 1 and first.unit != "line":
        first = RowPlace(first.file, f"{first.unit}s", first.number)
    return ", ".join([str(first), *(str(place.number) for place in places[1:])])


def row_error(name: str, reasons: Sequence[BadReason], count: int, advice: Sequence[str] = ()) -> RowError:
    """The error for `count` bad rows of the dataset `name`; `reasons` are the first, `advice` ends it, by the line."""
    listed = [f"  {reason}" for reason in reasons]
    others = count - sum(reason.count for reason in reasons)
    more = [f"  and {others} more, for other reasons"] if others else []
    rows = "1 row" if count == 1 else f"{count} rows"
    return RowError("\n".join([f"{rows} of {name} cannot be used:", *listed, *more, *advice]))
