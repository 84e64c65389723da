"""What the prompt_data stage reads."""

from typing import Any, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from tunemill.stages.data.rows.limits import Strategy
from tunemill.stages.declaration import ConflictError, Runtime, StageConfig


class PromptDataConfig(StageConfig):
    """Which prompts are learned from, and in which order."""

    datasets: Runtime[list[Any]] = Field(
        [], description="the datasets: their names stand in messages and tables, and nowhere else"
    )
    sequence_len: PositiveInt = Field(512, description="most tokens of a prompt, without its completion")
    excess_length_strategy: Strategy | None = Field(
        None,
        description="what happens to longer prompts: drop, which is the default, or raise; none is cut off",
    )
    shuffle_merged_datasets: bool = Field(True, description="shuffle the prompts of all datasets together")
    val_set_size: NonNegativeFloat = Field(
        0.0, description="prompts held out for evaluation: a fraction below 1, or a number of prompts above 1"
    )
    seed: NonNegativeInt = Field(42, description="order of the prompts")
    curriculum_sampling: bool = Field(False, description="keep the prompts in the order of the data")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.excess_length_strategy == "truncate":
            raise ConflictError(
                "excess_length_strategy: truncate: a prompt that is cut off asks something else. Use drop or raise",
                "excess_length_strategy",
            )
        size = self.val_set_size
        if size == 1 or (size > 1 and size != int(size)):
            raise ConflictError(
                f"val_set_size: {size:g} is neither a fraction below 1 nor a whole number of prompts above 1",
                "val_set_size",
            )
        shuffles = "shuffle_merged_datasets" in self.model_fields_set and self.shuffle_merged_datasets
        if self.curriculum_sampling and shuffles:
            raise ConflictError(
                "curriculum_sampling: true keeps the rows in order, and shuffle_merged_datasets: true shuffles them; "
                "keep one",
                "curriculum_sampling",
                "shuffle_merged_datasets",
            )
        return self
