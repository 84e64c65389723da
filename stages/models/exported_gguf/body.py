"""Writes the file for llama.cpp, and looks at what was really written."""

from tunemill.stages.artifacts import Adapter, Model
from tunemill.stages.errors import SettingError
from tunemill.stages.models.exported_gguf.config import ExportedGgufConfig
from tunemill.stages.report import Report, Workspace


def export(
    config: ExportedGgufConfig, model: Model, adapter: Adapter | None, out: Workspace, report: Report
) -> None:
    """Write one `.gguf` file."""
    del model, adapter, out, report
    raise SettingError(f"pipeline.export: gguf ({config.type}) is not written yet. Take it out")
