"""Scores one model on the `task` of an entry of `pipeline.evaluations`."""

from tunemill.stages.artifacts import Adapter, Model
from tunemill.stages.evaluation.harness.scored_body import evaluate as score
from tunemill.stages.evaluation.named_task.config import TaskConfig
from tunemill.stages.report import Report, Workspace


def evaluate(
    config: TaskConfig, model: Model, adapter: Adapter | None, out: Workspace, report: Report
) -> None:
    """Write metrics.json, intervals.json and predictions.jsonl. Raises UserError for tasks that cannot be run."""
    score(config.as_harness, model, adapter, out, report)
