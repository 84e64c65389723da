"""Whether an answer has a pattern; or what the pattern finds in it, compared with what it finds in the reference."""

import re
from typing import Literal

from pydantic import Field, field_validator

from tunemill.stages.evaluation.answered import Answered
from tunemill.stages.evaluation.metrics.settings import MetricSettings


class Regex(MetricSettings):
    """A regular expression of Python."""

    metric: Literal["regex"]
    pattern: str = Field(
        min_length=1, description="the regular expression, looked for anywhere in the answer"
    )
    as_reference: bool = Field(
        False,
        description="what the pattern finds last (of groups the first) must be what it finds in the reference",
    )

    @field_validator("pattern")
    @classmethod
    def _is_a_pattern(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        return value


def score(settings: Regex, one: Answered) -> bool | None:
    """Whether the pattern is found, or the same is found; None where the reference has nothing to compare with."""
    if not settings.as_reference:
        return re.search(settings.pattern, one.prediction) is not None
    wanted = last(settings.pattern, one.reference)
    return None if wanted is None else last(settings.pattern, one.prediction) == wanted


def last(pattern: str, text: str) -> str | None:
    """The last place of a text that a pattern finds; of one with groups the first group of it."""
    found = None
    for match in re.finditer(pattern, text):
        found = match.group(1) if match.re.groups else match.group()
    return found
