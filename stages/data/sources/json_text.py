"""Rows as compact JSON text, and what cannot be written as such."""

import json
from datetime import date, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from tunemill.stages.data.sources.json_values import HALF_PAIR


def _plain(value: Any) -> str:
    """Dates and times as ISO text, decimals and UUIDs as text. Raises TypeError for anything else."""
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal | UUID):
        return str(value)
    raise TypeError(f"{_kind(value)} has no form in JSON")


ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_plain)
LOOSE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str)


def json_text(value: Any) -> str:
    """The row as JSON text. Raises ValueError saying why it cannot be one, naming the column."""
    if not isinstance(value, dict):
        raise ValueError(f"not an object but {_kind(value)}; a row is an object of named fields")
    try:
        text = ENCODER.encode(value)
        if not text.isascii():
            text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(HALF_PAIR) from None
    except (TypeError, ValueError, RecursionError):
        raise ValueError(_culprit(value)) from None
    return text


def loose_text(value: Any) -> str:
    """A row that cannot be used, as text that may not be JSON."""
    try:
        return LOOSE.encode(value).encode("utf-8", errors="replace").decode("utf-8")
    except (TypeError, ValueError, RecursionError):
        return ""


def _culprit(row: dict[str, Any]) -> str:
    for name, value in row.items():
        try:
            ENCODER.encode({name: value})
        except (TypeError, ValueError, RecursionError) as error:
            return f"column {name!r} cannot be written as JSON: {error}"
    return "cannot be written as JSON"


def _kind(value: Any) -> str:
    names = {
        list: "an array",
        str: "a string",
        bool: "a boolean",
        type(None): "null",
        int: "a number",
        float: "a number",
        bytes: "a value of bytes",
    }
    return names.get(type(value), f"a {type(value).__name__}")
