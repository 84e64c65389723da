"""Scores one model on `lm_eval_tasks`."""

from tunemill.stages.artifacts import Adapter, Model
from tunemill.stages.evaluation.harness.keys import HarnessConfig
from tunemill.stages.evaluation.harness.scored_body import evaluate as score
from tunemill.stages.report import Report, Workspace


def evaluate(
    config: HarnessConfig, model: Model | None, adapter: Adapter | None, out: Workspace, report: Report
) -> None:
    """Write metrics.json, intervals.json and predictions.jsonl. Raises UserError for tasks that cannot be run."""
    score(config, model, adapter, out, report)
