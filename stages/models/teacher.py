"""The key of a teacher: a model that others learn from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from tunemill.stages.declaration import Fault, ModelSource, StageConfig, YamlMark
from tunemill.stages.models.heads import head_of_config
from tunemill.stages.models.model_folder import fault_of_folder, fault_of_json, settings_of

TEACHER = "pipeline.teacher"


def fault_of_teacher(folder: Path) -> str | None:
    """Why a folder is none of a language model."""
    if reason := fault_of_folder(folder):
        return reason
    stored = settings_of(folder)
    if stored is None:
        return fault_of_json(folder / "config.json")
    head = head_of_config(stored)
    return None if head is None else f"{folder}: it is {head}, and a teacher is a language model. Name one"


class TeacherKeys(StageConfig):
    """Which model teaches."""

    teacher: Annotated[ModelSource[str | None], YamlMark(TEACHER)] = Field(
        None,
        description="distillation: the model that is learned from: a folder, owner/name of one on the Hub, or "
        "asset://<pipeline>/<node>",
    )

    def faults(self) -> Iterator[Fault]:
        """A folder that is none of a language model."""
        yield from super().faults()
        if self.teacher and Path(self.teacher).exists() and (reason := fault_of_teacher(Path(self.teacher))):
            yield Fault("teacher", reason)
