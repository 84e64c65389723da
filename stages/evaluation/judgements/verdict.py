"""From a judge's answer to a value."""

import math
import re
from collections.abc import Mapping

from tunemill.stages.evaluation.answered import Answered

PLACE = re.compile(r"\{(prompt|reference|prediction)\}")


def question_about(template: str, one: Answered) -> str:
    """The template with the texts of a row in their places; braces inside of those texts mean nothing."""
    return PLACE.sub(lambda found: str(getattr(one, found[1])), template)


def value_of(verdict: str | None, values: Mapping[str, bool | float]) -> bool | float | None:
    """The value of a verdict, whatever the size of its letters; None of one that has none."""
    if verdict is None:
        return None
    named = {name.casefold(): value for name, value in values.items()}
    plain = verdict.strip().casefold()
    if plain in named:
        return named[plain]
    try:
        value = float(plain)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
