"""Evaluating a model on rows, and reading what was written."""

import json
from pathlib import Path
from typing import Any

from support.tiny_model import Heard, workspace
from tunemill.stages.artifacts import Adapter, EvaluationData, Model
from tunemill.stages.evaluation.answers.body import evaluate
from tunemill.stages.evaluation.answers.config import EvaluationConfig


def run(
    folder: Path, model: Path, data: EvaluationData, adapter: Path | None = None, **settings: Any
) -> tuple[dict[str, Any], list[dict[str, Any]], Heard]:
    """Metrics, predictions, and what was said."""
    out, heard = workspace(folder), Heard()
    evaluate(
        EvaluationConfig(**settings),
        model=Model(model),
        adapter=None if adapter is None else Adapter(adapter),
        evaluation_data=data,
        out=out,
        report=heard.report,
    )
    lines = (out.data / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return json.loads((out.data / "metrics.json").read_text()), [json.loads(line) for line in lines], heard
