"""The key of a teacher: a model that others learn from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from tunemill.stages.declaration import Fault, ModelSource, StageConfig, YamlMark
from tunemill.stages.models.files import weight_files

TEACHER = "pipeline.teacher"


def fault_of_teacher(folder: Path) -> str | None:
    """Why a folder is none of a model."""
    if not folder.is_dir():
        return f"{folder}: {'is a file' if folder.exists() else 'no such folder'}; name the folder of a model"
    try:
        has_weights = bool(weight_files(folder))
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{folder}: its index of weights is damaged. Fetch the model again"
    lacking = [
        what
        for what, is_there in (
            ("config.json", (folder / "config.json").is_file()),
            ("*.safetensors", has_weights),
        )
        if not is_there
    ]
    return f"{folder}: no {' and no '.join(lacking)}, so no model" if lacking else None


class TeacherKeys(StageConfig):
    """Which model teaches."""

    teacher: Annotated[ModelSource[str | None], YamlMark(TEACHER)] = Field(
        None,
        description="distillation: the model that is learned from: a folder, owner/name of one on the Hub, or "
        "asset://<pipeline>/<node>",
    )

    def faults(self) -> Iterator[Fault]:
        """A folder that is none of a model."""
        yield from super().faults()
        if self.teacher and Path(self.teacher).exists() and (reason := fault_of_teacher(Path(self.teacher))):
            yield Fault("teacher", reason)
