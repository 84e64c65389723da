"""What the preference_data stage reads."""

from typing import Any, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from tunemill.stages.data.rows.limits import Strategy
from tunemill.stages.declaration import ConflictError, Runtime, StageConfig


class PreferenceDataConfig(StageConfig):
    """Which preference rows are trained on, and in which order."""

    datasets: Runtime[list[Any]] = Field(
        [], description="the datasets: their names stand in messages and tables, and nowhere else"
    )
    sequence_len: PositiveInt = Field(
        512, description="most tokens of a prompt with either answer, or of a reward model's conversation"
    )
    excess_length_strategy: Strategy | None = Field(
        None,
        description="what happens to longer rows: drop, truncate (the answers, never the prompt) or raise; unset "
        "drops them, and truncates those of a reward model",
    )
    dataset_exact_deduplication: bool = Field(
        False, description="keep one of several rows with the same prompt and answers, whatever their dataset"
    )
    shuffle_merged_datasets: bool = Field(True, description="shuffle the rows of all datasets together")
    shuffle_before_merging_datasets: bool = Field(
        False, description="shuffle each of several datasets before they are put one behind the other"
    )
    val_set_size: NonNegativeFloat = Field(
        0.0, description="rows held out for evaluation: a fraction below 1, or a number of rows above 1"
    )
    seed: NonNegativeInt = Field(42, description="order of the rows")
    curriculum_sampling: bool = Field(False, description="keep the rows in the order of the data")

    num_labels: Runtime[PositiveInt | None] = Field(
        None, description="outputs of the model that is trained: the rows are the same for any number"
    )
    remove_unused_columns: Runtime[bool | None] = Field(
        None, description="leave out columns that training does not read: there are none here"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        size = self.val_set_size
        if size == 1 or (size > 1 and size != int(size)):
            raise ConflictError(
                f"val_set_size: {size:g} is neither a fraction below 1 nor a whole number of rows above 1",
                "val_set_size",
            )
        for key in ("shuffle_merged_datasets", "shuffle_before_merging_datasets"):
            if self.curriculum_sampling and key in self.model_fields_set and getattr(self, key):
                raise ConflictError(
                    f"curriculum_sampling: true keeps the rows in order, and {key}: true shuffles them; keep one",
                    "curriculum_sampling",
                    key,
                )
        return self
