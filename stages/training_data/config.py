"""What the training_data stage reads."""

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from tunemill.stages.declaration import ConflictError, StageConfig


class TrainingDataConfig(StageConfig):
    """Which rows are trained on, in which order, and how they are put into sequences."""

    sequence_len: PositiveInt = Field(512, description="longest row kept and length of a pack, in tokens")
    excess_length_strategy: Literal["drop", "truncate", "raise"] = Field(
        "drop", description="what happens to rows longer than sequence_len"
    )
    min_sample_len: NonNegativeInt = Field(2, description="shortest row kept, in tokens")
    sample_packing: bool = Field(False, description="several rows per sequence, kept apart by position ids")
    shuffle_merged_datasets: bool = Field(True, description="shuffle the rows of all datasets together")
    shuffle_before_merging_datasets: bool = Field(
        False, description="shuffle each of several datasets before they are put one behind the other"
    )
    val_set_size: NonNegativeFloat = Field(
        0.0, description="rows held out for evaluation: a fraction below 1, or a number of rows above 1"
    )
    seed: NonNegativeInt = Field(42, description="order of rows, of packs and of the rows in a pack")
    curriculum_sampling: bool = Field(False, description="keep the rows in the order of the data")

    @model_validator(mode="after")
    def _check(self) -> Self:
        size = self.val_set_size
        if size == 1 or (size > 1 and size != int(size)):
            raise ConflictError(
                f"val_set_size: {size:g} is neither a fraction below 1 nor a whole number of rows above 1",
                "val_set_size",
            )
        if self.min_sample_len > self.sequence_len:
            raise ConflictError(
                f"min_sample_len: {self.min_sample_len} is more than sequence_len: {self.sequence_len}, "
                "so no row would be left",
                "min_sample_len",
                "sequence_len",
            )
        if self.curriculum_sampling:
            self._check_curriculum()
        return self

    def _check_curriculum(self) -> None:
        for key in ("shuffle_merged_datasets", "shuffle_before_merging_datasets"):
            if key in self.model_fields_set and getattr(self, key):
                raise ConflictError(
                    f"curriculum_sampling: true keeps the rows in order, and {key}: true shuffles them; keep one",
                    "curriculum_sampling",
                    key,
                )
