"""Which folders hold weights in another way than transformers trains them, and what reads these."""

from pathlib import Path

from tunemill.stages.errors import SettingError
from tunemill.stages.models.base_model.config import BaseModelConfig
from tunemill.stages.models.base_model.folder import settings_of
from tunemill.stages.models.base_model.layouts.linearized_body import (
    TextModel,
    settings_of_text,
)
from tunemill.stages.models.base_model.layouts.plain_body import write_plain
from tunemill.stages.models.linearized import KEY as LINEARIZED
from tunemill.stages.models.linearized import fault_of_type
from tunemill.stages.report import Report


def as_plain(config: BaseModelConfig, folder: Path, target: Path, report: Report) -> Path:
    """The model's folder, or where it holds weights in another way, `target`, with these as plain numbers.

    Raises SettingError where a key says something else of the folder, SourceError where tensors are missing.
    """
    stored = settings_of(folder) or {}
    if not config.llama4_linearized_experts:
        return folder
    if reason := fault_of_type(stored.get("model_type")):
        raise SettingError(f"{LINEARIZED}: {reason}.")
    if config.reinit_weights:
        return folder
    model, sees = TextModel(folder), "text_config" in stored
    if not (model.is_linearized or sees):
        return folder
    if model.is_linearized:
        report.log("the experts are stored as linear modules; they are read as transformers stores them")
    if sees:
        report.log("of this model what reads text is taken, and what reads images is left out")
    write_plain(model, settings_of_text(stored), folder, target, report)
    return target
