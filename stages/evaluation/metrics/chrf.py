"""chrF (Popović 2015), by sacrebleu."""

from collections.abc import Sequence
from typing import Literal

from tunemill.stages.evaluation.answered import Answered
from tunemill.stages.evaluation.metrics.settings import MetricSettings


class Chrf(MetricSettings):
    """Of 100. Of each row that of the one sentence, of all rows that of the corpus."""

    metric: Literal["chrf"]

    @property
    def packages(self) -> tuple[str, ...]:
        """Its package."""
        return ("sacrebleu",)


def score(_settings: Chrf, one: Answered) -> float:
    """Of one answer."""
    import sacrebleu

    return float(sacrebleu.sentence_chrf(one.prediction, [one.reference]).score)


def overall(_settings: Chrf, rows: Sequence[Answered]) -> float:
    """Of all answers as one corpus."""
    import sacrebleu

    return float(
        sacrebleu.corpus_chrf([one.prediction for one in rows], [[one.reference for one in rows]]).score
    )
