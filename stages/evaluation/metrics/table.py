"""The metrics of generated answers by their names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunemill.stages.evaluation.answered import Answered
from tunemill.stages.evaluation.metrics import (
    bleu,
    chrf,
    contains,
    exact_match,
    json_schema,
    normalized_match,
    numeric,
    regex,
    rouge,
)
from tunemill.stages.evaluation.metrics.settings import Value


@dataclass(frozen=True)
class Metric:
    """What a metric says of one answer with its settings, and of all together where that is no mean over answers."""

    score: Callable[[Any, Answered], Value]
    overall: Callable[[Any, Sequence[Answered]], float] | None = None


# Of every one of `keys.py` that is computed from answers, and by no function of one's own.
METRICS: Mapping[str, Metric] = {
    "exact_match": Metric(exact_match.score),
    "normalized_match": Metric(normalized_match.score),
    "regex": Metric(regex.score),
    "contains": Metric(contains.score),
    "numeric": Metric(numeric.score),
    "json_schema": Metric(json_schema.score),
    "bleu": Metric(bleu.score, bleu.overall),
    "chrf": Metric(chrf.score, chrf.overall),
    "rouge": Metric(rouge.score),
}
