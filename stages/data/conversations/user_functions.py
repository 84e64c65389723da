"""What a user's own function gives back: a function from row to row, and rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tunemill.stages.data.conversations.example import BadRowError, RowValue
from tunemill.stages.data.rows.nulls import without_nulls
from tunemill.stages.errors import SettingError

EVERY_COLUMN = "__all__"


@dataclass(frozen=True)
class MapFunction:
    """A function from row to row, and which of the row's fields go, None for all."""

    function: Callable[..., Any]
    removed: frozenset[str] | None


def map_function(name: str, made: Any) -> MapFunction:
    """What a transform returned: a function, or a pair of it and {"remove_columns": ...}."""
    function, options = made if isinstance(made, tuple) and len(made) == 2 else (made, {})
    if not callable(function) or not isinstance(options, Mapping):
        raise SettingError(
            f'{name} must return a function from row to row, or (function, {{"remove_columns": [...]}}), not '
            f"{made!r:.60}"
        )
    unknown = sorted(set(options) - {"remove_columns"})
    if unknown:
        raise SettingError(
            f"{name}: only remove_columns may come with the function, not {', '.join(unknown)}"
        )
    removed = options.get("remove_columns") or []
    if removed == EVERY_COLUMN:
        return MapFunction(function, None)
    if isinstance(removed, str):
        removed = [removed]
    return MapFunction(function, frozenset(removed))


def row_of(name: str, result: Any) -> RowValue:
    """What user code returned, as a row of plain lists without nulls."""
    if not isinstance(result, Mapping) and not hasattr(result, "keys"):
        raise BadRowError(f"{name} returned {result!r:.60}, which is no row")
    plain = {str(key): result[key] for key in result.keys()}  # noqa: SIM118 - it may be no Mapping
    return {
        key: without_nulls(value.tolist() if hasattr(value, "tolist") else value)
        for key, value in plain.items()
        if value is not None
    }
