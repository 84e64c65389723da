"""Errors that a person can mend: bad rows, bad files, settings that cannot be honoured."""

from collections.abc import Sequence


class UserError(ValueError):
    """What was given, which rule it breaks, and how to mend it. Shown without a traceback."""


class RowError(UserError):
    """A row of a dataset cannot be used."""


class SourceError(UserError):
    """Something that the config names cannot be read."""


class SettingError(UserError):
    """A setting cannot be honoured with these inputs or on this machine."""


def row_error(file: str, unit: str, problems: Sequence[tuple[int, str]], count: int) -> RowError:
    """The error for `count` bad rows of `file`.

    `problems` are the first of them, as (number, reason); `unit` says what the numbers count: line or row.
    """
    where = f"{file}:" if unit == "line" else f"{file}, {unit} "
    listed = "\n".join(f"  {where}{number}: {reason}" for number, reason in problems)
    more = f"\n  and {count - len(problems)} more" if count > len(problems) else ""
    rows = "1 row" if count == 1 else f"{count} rows"
    return RowError(f"{rows} of {file} cannot be used:\n{listed}{more}")
