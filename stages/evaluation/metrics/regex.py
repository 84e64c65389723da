"""Whether an answer has a pattern; or what the pattern finds in it, compared with what it finds in the reference."""

import re
from typing import Literal

from pydantic import Field

from tunemill.stages.evaluation.answered import Answered
from tunemill.stages.evaluation.metrics.settings import MetricSettings
from tunemill.stages.evaluation.regular_expressions import RegularExpression, last


class Regex(MetricSettings):
    """A regular expression of Python."""

    metric: Literal["regex"]
    pattern: RegularExpression = Field(
        min_length=1, description="the regular expression, looked for anywhere in the answer"
    )
    as_reference: bool = Field(
        False,
        description="what the pattern finds last (of groups the first) must be what it finds in the reference",
    )


def score(settings: Regex, one: Answered) -> bool | None:
    """Whether the pattern is found, or the same is found; None where the reference has nothing to compare with."""
    if not settings.as_reference:
        return re.search(settings.pattern, one.prediction) is not None
    wanted = last(settings.pattern, one.reference)
    return None if wanted is None else last(settings.pattern, one.prediction) == wanted
