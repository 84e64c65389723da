"""Whether an answer is the reference, its end too."""

from typing import Literal

from tunemill.stages.evaluation.answered import Answered
from tunemill.stages.evaluation.metrics.settings import MetricSettings

# What bytes that are no UTF-8 decode to: different ones look alike.
BROKEN = "\ufffd"


class ExactMatch(MetricSettings):
    """All of the text is the same, white space too, and the answer ends where the reference does."""

    metric: Literal["exact_match"]


def score(_settings: ExactMatch, one: Answered) -> bool:
    """Whether text and end are the same."""
    if one.stops and one.finish_reason != "stop":
        return False
    if BROKEN in one.reference:
        return one.answer_ids == one.reference_ids
    return one.prediction == one.reference
