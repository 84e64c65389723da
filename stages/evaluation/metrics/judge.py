"""What a judge says of an answer: a metric whose values the `judgements` stage has asked for."""

from typing import Literal

from tunemill.stages.evaluation.metrics.settings import MetricSettings


class Judge(MetricSettings):
    """The verdict of the language model that the key `judge` names."""

    metric: Literal["judge"]
