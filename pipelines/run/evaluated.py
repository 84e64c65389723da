"""What an evaluation's artifact says of how sure its scores are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunemill.pipelines.graph.nodes import Node
from tunemill.resources.folders import read_json
from tunemill.stages.artifacts import EvaluationReport
from tunemill.stages.declaration import Stage


def intervals_of(stage: Stage, data: Path) -> Mapping[str, Mapping[str, Any]]:
    """Metric -> its interval (see EvaluationReport); none where the stage does not evaluate, or did not say so once."""
    if not issubclass(stage.output, EvaluationReport):
        return {}
    file = EvaluationReport(data).intervals
    found = read_json(file) if file.is_file() else {}
    return found if isinstance(found, dict) else {}


def evaluated_name(node: Node) -> str:
    """`merged` of evaluation_of_merged; `merged, dates` of evaluation_dates_of_merged, which has other rows."""
    model = node.about or node.name
    if not node.name.startswith("evaluation_") or node.name == f"evaluation_of_{model}":
        return model
    return f"{model}, {node.name.removeprefix('evaluation_').removesuffix(f'_of_{model}')}"
