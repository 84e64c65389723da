"""BLEU (Papineni et al. 2002), by sacrebleu."""

from collections.abc import Sequence
from typing import Literal

from tunemill.stages.evaluation.answered import Answered
from tunemill.stages.evaluation.metrics.settings import MetricSettings


class Bleu(MetricSettings):
    """Of 100. Of each row that of the one sentence, of all rows that of the corpus."""

    metric: Literal["bleu"]

    @property
    def packages(self) -> tuple[str, ...]:
        """Its package."""
        return ("sacrebleu",)


def score(_settings: Bleu, one: Answered) -> float:
    """Of one answer, with the smoothing that sacrebleu has for sentences."""
    import sacrebleu

    return float(sacrebleu.sentence_bleu(one.prediction, [one.reference]).score)


def overall(_settings: Bleu, rows: Sequence[Answered]) -> float:
    """Of all answers as one corpus."""
    import sacrebleu

    return float(
        sacrebleu.corpus_bleu([one.prediction for one in rows], [[one.reference for one in rows]]).score
    )
