"""Compute metrics of stored answers."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tunemill.stages.artifacts import EvaluationData, Generations, Judgements, RawDataset
from tunemill.stages.data.conversations.user_modules import UserFailures, load_function, parameters
from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.evaluation.answered import Answered, read_answered
from tunemill.stages.evaluation.excerpts import WRONG_SHOWN, end_of, start_of
from tunemill.stages.evaluation.groups import groups_of
from tunemill.stages.evaluation.judged import read_judged
from tunemill.stages.evaluation.metrics.function import Function, arguments
from tunemill.stages.evaluation.metrics.keys import JUDGE
from tunemill.stages.evaluation.metrics.settings import MetricSettings, Value
from tunemill.stages.evaluation.metrics.table import METRICS
from tunemill.stages.evaluation.scores.config import ScoresConfig
from tunemill.stages.evaluation.written import Mean, write_scores
from tunemill.stages.own_classes import dotted
from tunemill.stages.report import Report, Workspace


def score(
    config: ScoresConfig,
    generations: Generations,
    judgements: Judgements | None,
    out: Workspace,
    report: Report,
    dataset: RawDataset | None = None,
    evaluation_data: EvaluationData | None = None,
) -> None:
    """Write metrics, predictions and intervals. Raises UserError where a function of one's own fails."""
    rows = list(read_answered(generations.rows))
    if config.group is not None and dataset is not None and evaluation_data is not None:
        groups = groups_of(config.group, dataset.rows, evaluation_data.sources)
        rows = [replace(row, group=groups[row.row]) for row in rows]
    judged = {} if judgements is None else {one.row: one.value for one in read_judged(judgements.rows)}
    values = {one.label: _values(one, rows, judged, config, report) for one in config.metrics}
    metrics: dict[str, float | int] = {}
    means: dict[str, Mean] = {}
    for one in config.metrics:
        overall = METRICS[one.metric].overall if one.metric in METRICS else None
        said = [float(value) for value in values[one.label] if value is not None]
        if not said:
            report.log(f"{one.label}: applies to none of {len(rows)} rows")
        elif overall is not None:
            metrics[one.label] = overall(one, rows)
        else:
            metrics[one.label] = math.fsum(said) / len(said)
            means[one.label] = Mean(one.label)
        if 0 < len(said) < len(rows):
            report.log(f"{one.label}: applies to {len(said)} of {len(rows)} rows")
    metrics["rows"] = len(rows)
    predictions = [
        {**_shown(row), **{label: of_rows[place] for label, of_rows in values.items()}}
        for place, row in enumerate(rows)
    ]
    write_scores(metrics, predictions, means, out.data, report)
    _show_wrong(config.metrics[0].label, predictions, report)


def _values(
    one: MetricSettings,
    rows: Sequence[Answered],
    judged: Mapping[int, Value],
    config: ScoresConfig,
    report: Report,
) -> list[Value]:
    """What a metric says of each row."""
    if one.metric == JUDGE:
        return [judged.get(row.row) for row in rows]
    call = (
        _own_function(one, config.metric_code or [])
        if isinstance(one, Function)
        else lambda row: METRICS[one.metric].score(one, row)
    )
    found: list[Value] = []
    for row in rows:
        found.append(call(row))
        report.progress(len(found), len(rows), one.label)
    return found


def _own_function(one: Function, files: Sequence[str]) -> Callable[[Answered], Value]:
    """A function of one's own, as one from a row to a value."""
    function = load_function("metrics", dotted(one.function), files)
    names = sorted(parameters(function))

    def call(row: Answered) -> Value:
        with UserFailures(f"metrics: {one.function}: row {row.row}", files, UserError):
            value: Any = function(**arguments(row, names))
            value = value.item() if hasattr(value, "item") else value
        if value is None or isinstance(value, bool):
            return value
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise SettingError(
                f"metrics: {one.function} gave {value!r:.60} for row {row.row}. It must give true, false, a finite "
                f"number, or None where it does not apply"
            )
        return float(value)

    return call


def _shown(row: Answered) -> dict[str, Any]:
    """What predictions.jsonl holds of a row beside its values."""
    group = {} if row.group is None else {"group": row.group}
    return {
        "row": row.row,
        "id": row.id,
        **group,
        "prompt": row.prompt,
        "reference": row.reference,
        "prediction": row.prediction,
        "tokens": row.tokens,
        "finish_reason": row.finish_reason,
    }


def _show_wrong(label: str, predictions: Sequence[Mapping[str, Any]], report: Report) -> None:
    """The first rows that the first metric calls wrong."""
    wrong = [one for one in predictions if one[label] is False or one[label] == 0]
    if wrong:
        shown = [
            [one["row"], end_of(one["prompt"]), start_of(one["reference"]), start_of(one["prediction"])]
            for one in wrong[:WRONG_SHOWN]
        ]
        columns = ["row", "prompt", "reference", "prediction"]
        report.table(f"Wrong by {label} ({len(wrong)})", columns, shown)
