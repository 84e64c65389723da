"""What the evaluation_data stage reads."""

from typing import Annotated, Any, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from tunemill.stages.data.rows.limits import Limits, Strategy
from tunemill.stages.data.rows.report_key import DESCRIPTION, DataReport
from tunemill.stages.declaration import ConflictError, GraphMark, Runtime, StageConfig


class EvaluationDataConfig(StageConfig):
    """How long the rows may be, and which of them are left out."""

    test_datasets: Runtime[list[Any]] = Field(
        [], description="the held-out datasets: their names stand in messages and tables, and nowhere else"
    )
    named: Annotated[Runtime[str | None], GraphMark()] = Field(
        None, description="the entry of pipeline.evaluations whose rows these are: its name stands in tables"
    )
    keeps_sources: Annotated[bool, GraphMark()] = Field(
        False,
        description="of each row its number in its dataset is written down, for rows that belong together",
    )
    sequence_len: PositiveInt = Field(512, description="longest row kept, in tokens")
    eval_sequence_len: PositiveInt | None = Field(
        None, description="longest row kept for evaluation, in tokens; unset means sequence_len"
    )
    excess_length_strategy: Strategy = Field("drop", description="what happens to longer rows")
    min_sample_len: NonNegativeInt = Field(2, description="shortest row kept, in tokens")
    dataset_exact_deduplication: bool = Field(
        False, description="leave out rows that occur twice, or that are trained on"
    )

    data_report: DataReport = Field("cheap", description=DESCRIPTION)

    @property
    def limits(self) -> Limits:
        """How long rows may be."""
        longest, key = self.eval_sequence_len, "eval_sequence_len"
        if longest is None:
            longest, key = self.sequence_len, "sequence_len"
        return Limits(longest, key, self.min_sample_len, self.excess_length_strategy)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_sample_len > self.limits.longest:
            raise ConflictError(
                f"min_sample_len: {self.min_sample_len} is more than {self.limits.key}: {self.limits.longest}, "
                "so no row would be left to evaluate on",
                "min_sample_len",
                self.limits.key,
            )
        return self
