"""What evaluations say of models, as a card tells it."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

from tunemill.stages.artifacts import EvaluationReport


@dataclass(frozen=True)
class Score:
    """A figure of an evaluation, with its interval where it has one."""

    node: str
    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    confidence: float | None = None


def scores_in(node: str, evaluation: EvaluationReport) -> Iterator[Score]:
    """Every figure that is a number."""
    metrics = json.loads(evaluation.metrics.read_text(encoding="utf-8"))
    file = evaluation.path / "intervals.json"
    intervals = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    for metric, value in metrics.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            interval = intervals.get(metric) or {}
            yield Score(
                node, metric, value, interval.get("low"), interval.get("high"), interval.get("confidence")
            )
