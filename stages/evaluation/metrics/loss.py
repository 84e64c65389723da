"""The loss over the tokens of held-out rows: a metric of the model itself, for which nothing is generated."""

from typing import Literal

from tunemill.stages.evaluation.metrics.settings import MetricSettings


class Loss(MetricSettings):
    """Loss and perplexity, computed by the `held_out_loss` stage."""

    metric: Literal["loss"]
