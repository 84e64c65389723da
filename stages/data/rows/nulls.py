"""Null fields of rows: no fields at all, but where a template writes what it finds."""

from typing import Any

# What a model calls a tool with, and the schema of that. A null in them is a value, which templates write.
ARGUMENTS, PARAMETERS = "arguments", "parameters"
EXACT = frozenset({ARGUMENTS, PARAMETERS})


def without_nulls(value: Any) -> Any:
    """A field that is null is a field that is not there, at every depth but within the fields of EXACT."""
    if isinstance(value, dict):
        return {
            key: item if key in EXACT else without_nulls(item)
            for key, item in value.items()
            if item is not None
        }
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value
