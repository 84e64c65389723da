"""The keys of every method that learns from rows of tokens."""

from typing import Self

from pydantic import model_validator

from tunemill.stages.declaration import ConflictError
from tunemill.stages.training.keys.sequences import SequenceKeys
from tunemill.stages.training.keys.training import TrainingKeys


class RowKeys(TrainingKeys, SequenceKeys):
    """What every method reads, and how rows share sequences."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.group_by_length and self.curriculum_sampling:
            raise ConflictError(
                "group_by_length sorts rows by length, and curriculum_sampling keeps their order. Choose one",
                "group_by_length",
                "curriculum_sampling",
            )
        return self
