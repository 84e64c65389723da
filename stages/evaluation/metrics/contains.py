"""Whether an answer contains the reference, or some text."""

from typing import Literal

from pydantic import Field

from tunemill.stages.evaluation.answered import Answered
from tunemill.stages.evaluation.metrics.settings import MetricSettings


class Contains(MetricSettings):
    """A text in the answer."""

    metric: Literal["contains"]
    text: str | None = Field(None, min_length=1, description="what is looked for; unset: the reference")
    ignore_case: bool = Field(False, description="large and small letters are the same")


def score(settings: Contains, one: Answered) -> bool:
    """Whether it is there."""
    wanted = settings.text if settings.text is not None else one.reference.strip()
    if settings.ignore_case:
        return wanted.casefold() in one.prediction.casefold()
    return wanted in one.prediction
