"""The table of wrong answers to tasks."""

from collections.abc import Mapping, Sequence
from typing import Any

from tunemill.stages.evaluation.excerpts import WRONG_SHOWN, end_of, start_of
from tunemill.stages.report import Report, Scalar


def show_wrong(predictions: Sequence[Mapping[str, Any]], metrics: Sequence[str], report: Report) -> None:
    """The first rows on which a model is wrong by a metric of right and wrong."""
    wrong = [row for row in predictions if any(row.get(name) is False for name in metrics)]
    if wrong:
        shown: list[list[Scalar]] = [
            [
                row["task"],
                row["doc_id"],
                end_of(row["prompt"]),
                start_of(row["reference"]),
                start_of(row["prediction"]),
            ]
            for row in wrong[:WRONG_SHOWN]
        ]
        columns = ["task", "doc_id", "prompt", "reference", "prediction"]
        report.table(f"Wrong answers ({len(wrong)})", columns, shown)
