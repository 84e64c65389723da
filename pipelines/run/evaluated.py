"""What an evaluation's artifact says of how sure its scores are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
