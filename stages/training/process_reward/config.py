"""What the `process_reward` stage reads from the YAML."""

from typing import ClassVar, Self

from pydantic import Field, model_validator

from tunemill.stages.declaration import ConflictError
from tunemill.stages.models.heads import Head
from tunemill.stages.training.keys.rows import RowKeys


class ProcessRewardConfig(RowKeys):
    """A model that judges the steps of an answer, full or LoRA. Names and defaults are Axolotl's."""

    own_figures: ClassVar[tuple[str, ...]] = ("accuracy",)

    num_labels: int = Field(
        2, ge=2, description="classes of a step, from 0 on, which is a wrong one; with two, 1 is a right one"
    )

    @property
    def head(self) -> Head:
        """One score of each class, at each token."""
        return Head("token", self.num_labels)

    @model_validator(mode="after")
    def _check_scoring(self) -> Self:
        if self.eval_sample_packing:
            raise ConflictError(
                "eval_sample_packing: held-out answers in steps are scored one in a sequence. Remove it",
                "eval_sample_packing",
            )
        return self
