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


class SettingError(UserError):
    """A setting cannot be honoured with these inputs or on this machine."""


def row_error(name: str, problems: Sequence[tuple[RowPlace, str]], count: int) -> RowError:
    """The error for `count` bad rows of the dataset `name`; `problems` are the first of them, with reasons."""
    listed = "\n".join(f"  {place}: {reason}" for place, reason in problems)
    more = f"\n  and {count - len(problems)} more" if count > len(problems) else ""
    rows = "1 row" if count == 1 else f"{count} rows"
    return RowError(f"{rows} of {name} cannot be used:\n{listed}{more}")
