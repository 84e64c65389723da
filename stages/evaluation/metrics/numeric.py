"""Whether the last number of an answer is that of the reference."""

import math
import re
from typing import Literal

from pydantic import Field, NonNegativeFloat

from tunemill.stages.evaluation.answered import Answered
from tunemill.stages.evaluation.metrics.settings import MetricSettings

# A sign belongs to a number where no digit or letter stands before it; thousands may be kept apart by commas.
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?")


class Numeric(MetricSettings):
    """Numbers, however they are written."""

    metric: Literal["numeric"]
    relative: NonNegativeFloat = Field(1e-6, description="how far off, as a share of the larger one")
    absolute: NonNegativeFloat = Field(0.0, description="how far off at least may be, whatever their size")


def score(settings: Numeric, one: Answered) -> bool | None:
    """Whether the numbers are that close; None where the reference has none."""
    wanted, found = last_number(one.reference), last_number(one.prediction)
    if wanted is None:
        return None
    return found is not None and math.isclose(
        found, wanted, rel_tol=settings.relative, abs_tol=settings.absolute
    )


def last_number(text: str) -> float | None:
    """The last number in a text."""
    found = [match.group() for match in NUMBER.finditer(text)]
    return float(found[-1].replace(",", "")) if found else None
