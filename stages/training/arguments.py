"""Arguments that a YAML hands on to an optimizer or a scheduler: read as values of the types that these take."""

from collections.abc import Mapping
from typing import Any

Kinds = Mapping[str, type]

TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0")
WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}


def split_text(given: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """Arguments as a mapping; a text is `a=1,b=2`. Raises ValueError for another text."""
    if not isinstance(given, str):
        return dict(given or {})
    pairs = [part.partition("=") for part in given.replace(" ", "").split(",") if part]
    if not all(name and equals and argument for name, equals, argument in pairs):
        raise ValueError(f'"{given}": write name=value, several with commas between')
    return {name: argument for name, _, argument in pairs}


def read_arguments(key: str, given: Mapping[str, Any], kinds: Kinds) -> dict[str, Any]:
    """The arguments as values of these types. Raises ValueError where one is of another."""
    return {name: read_argument(f"{key}: {name}", value, kinds[name]) for name, value in given.items()}


def read_argument(where: str, value: Any, kind: type) -> Any:
    """One argument; YAML writes 1e-5 as a text, and so does `a=1`. Raises ValueError where it is of another type."""
    try:
        return _as_kind(value, kind)
    except ValueError:
        raise ValueError(f"{where}: must be {WORDS[kind]} (given: {value!r})") from None


def _as_kind(value: Any, kind: type) -> Any:
    if kind is str and isinstance(value, str):
        return value
    if kind is bool:
        plain = str(value).lower()
        if isinstance(value, bool | str) and plain in (*TRUE, *FALSE):
            return plain in TRUE
    elif kind in (int, float) and isinstance(value, int | float | str) and not isinstance(value, bool):
        number = float(value)
        if number - number == 0 and (kind is float or number == int(number)):
            return kind(number)
    raise ValueError(value)
