"""The files of an evaluation."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunemill.stages.artifacts import EvaluationReport
from tunemill.stages.evaluation.scored import Row, unit_of
from tunemill.stages.evaluation.statistics.intervals import Interval, interval
from tunemill.stages.report import Report


@dataclass(frozen=True)
class Mean:
    """A metric that is the mean of a field of the predictions, weighted by another field of theirs if one is named.

    `through`: what is made of the mean, such as a perplexity of a loss.
    """

    values: str
    weights: str | None = None
    through: Callable[[float], float] | None = None


def write_scores(
    metrics: Mapping[str, float | int],
    predictions: Sequence[Row],
    means: Mapping[str, Mean],
    folder: Path,
    report: Report,
) -> None:
    """Write metrics.json, predictions.jsonl and intervals.json, and report the metrics.

    A prediction has `row`, `id` (`row_id`), and `group` where rows belong together. `means` says which metrics are the
    mean of which field of the predictions: each gets its interval, in which the rows of one group, and those that ask
    the same, are drawn together. Metrics that are not computed are passed over.
    """
    found = EvaluationReport(folder)
    _write_json(metrics, found.metrics)
    with found.predictions.open("w", encoding="utf-8") as file:
        for prediction in predictions:
            file.write(json.dumps(prediction, ensure_ascii=False) + "\n")
    intervals = {}
    for metric, mean in means.items():
        sure = interval_of(predictions, mean) if metric in metrics else None
        if sure is not None:
            own = {} if mean.through else {"values": mean.values}
            weights = {"weights": mean.weights} if own and mean.weights else {}
            intervals[metric] = {**sure.as_json(), **own, **weights}
    _write_json(intervals, found.intervals)
    report.summary(**metrics)


def interval_of(predictions: Sequence[Row], mean: Mean) -> Interval | None:
    """The interval of a mean, over the rows that it applies to; None where that is none or one, or infinite on one."""
    rows = [row for row in predictions if row.get(mean.values) is not None]
    values = [row[mean.values] for row in rows]
    if not rows or not all(map(math.isfinite, values)):
        return None
    weights = [row[mean.weights] for row in rows] if mean.weights else None
    found = interval(values, [unit_of(row) for row in rows], weights=weights)
    if found is None or mean.through is None:
        return found
    ends = (mean.through(found.low), mean.through(found.high))
    return Interval(min(ends), max(ends), found.confidence, found.method, found.rows)


def _write_json(document: Mapping[str, Any], file: Path) -> None:
    file.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
