"""JSON as rows are read from it: what a value may be, and why another is none."""

import json
import math
from collections import Counter
from json import JSONDecodeError
from typing import Any

# Of arrays and objects in one another. What reads rows later goes down by calls of functions, of which Python
# allows a thousand.
MOST_LEVELS = 256
SHOWN_CHARACTERS = 40
# What reasons begin with that find fault with the JSON itself.
NO_JSON = "invalid JSON: "


def decoded(text: str) -> Any:
    """The value of a text. Raises ValueError, saying what is wrong with it, for all that cannot be kept as it is."""
    try:
        value = DECODER.decode(text)
    except JSONDecodeError as error:
        raise ValueError(problem(error, f"column {error.colno}")) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(problem(error)) from None
    check_kept(text, value)
    return value


def problem(error: ValueError | RecursionError, place: str = "") -> str:
    """What is said of a row in which the decoder found this; `place` is the line or column of a fault in the JSON."""
    if isinstance(error, RecursionError):
        return TOO_DEEP
    if not isinstance(error, JSONDecodeError):
        return str(error)
    nul = ", a byte of value 0" if error.doc[error.pos : error.pos + 1] == "\0" else ""
    return f"{NO_JSON}{error.msg} ({place}{nul})"


def check_kept(text: str, value: Any) -> None:
    """Raises ValueError for a value that is JSON and yet no row could keep. `text` is what it was read from."""
    if text.count("[") + text.count("{") > MOST_LEVELS and _levels(value) > MOST_LEVELS:
        raise ValueError(TOO_DEEP)
    if "\\u" in text and not _is_encodable(value):
        raise ValueError(HALF_PAIR)


def _levels(value: Any) -> int:
    """How deep arrays and objects lie in one another."""
    levels, inside = 0, [value]
    while inside := [item for item in inside if isinstance(item, dict | list)]:
        levels += 1
        inside = [item for outer in inside for item in (outer.values() if isinstance(outer, dict) else outer)]
    return levels


def _is_encodable(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object. Raises ValueError where a key stands in it twice: one of its values would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        repeated = next(name for name, count in counts.items() if count > 1)
        raise ValueError(f"the key {_short(repr(repeated))} stands twice in one object; keep one of them")
    return found


def _number(text: str) -> float:
    """A number with a fraction or an exponent, as the nearest of 64 bits."""
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{_short(text)} is larger than a number can be, which is 1.797e308")
    return value


def _integer(text: str) -> int:
    """A whole number, of any size that Python writes out again."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{_short(text)} has {len(text.lstrip('-'))} digits, which are too many") from None


def _constant(name: str) -> Any:
    raise ValueError(f"{NO_JSON}{name} is not a JSON value")


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


TOO_DEEP = f"arrays and objects lie in one another more than {MOST_LEVELS} levels deep"
HALF_PAIR = "a string holds half a surrogate pair, which is not a character"
DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_number, parse_int=_integer, parse_constant=_constant
)
