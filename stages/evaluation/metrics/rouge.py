"""ROUGE (Lin 2004), by rouge-score."""

from functools import cache
from typing import Any, Literal

from pydantic import Field

from tunemill.stages.evaluation.answered import Answered
from tunemill.stages.evaluation.metrics.settings import MetricSettings


class Rouge(MetricSettings):
    """The F-measure of what answer and reference share, from 0 to 1."""

    metric: Literal["rouge"]
    of: Literal["rouge1", "rouge2", "rougeL"] = Field(
        "rougeL", description="what is shared: words, pairs of words, or the longest sequence of words"
    )
    stemmer: bool = Field(False, description="words count by their stems, as in English")

    @property
    def packages(self) -> tuple[str, ...]:
        """Its package."""
        return ("rouge-score",)


def score(settings: Rouge, one: Answered) -> float:
    """Of one answer."""
    scores = scorer(settings.of, settings.stemmer).score(one.reference, one.prediction)
    return float(scores[settings.of].fmeasure)


@cache
def scorer(of: str, stemmer: bool) -> Any:
    """What computes it."""
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([of], use_stemmer=stemmer)
