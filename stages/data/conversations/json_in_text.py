"""JSON that a row stores as text, read so that nothing of it is lost unseen."""

import json
import math
from typing import Any

from tunemill.stages.data.conversations.example import BadRowError


def parsed(text: str, where: str) -> Any:
    """The value behind a JSON text.

    Raises BadRowError for what is no JSON, and for what a value could not hold: keys that stand twice, numbers beyond
    floating point, halves of surrogate pairs. Integers have any size.
    """
    try:
        value = DECODER.decode(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        return value
    except UnicodeEncodeError:
        raise BadRowError(
            f"{where}: its JSON holds half a surrogate pair, which is not a character"
        ) from None
    except RecursionError:
        raise BadRowError(f"{where}: its JSON is nested too deep") from None
    except ValueError as error:
        raise BadRowError(f"{where} should be JSON: {error}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {repeated!r} stands twice in an object, and only one value can be kept")
    return value


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text:.60} is beyond what a number can be")
    return value


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_constant=_constant)
