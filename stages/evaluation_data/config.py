"""What the evaluation_data stage reads."""

from pydantic import Field, PositiveInt

from tunemill.stages.declaration import StageConfig


class EvaluationDataConfig(StageConfig):
    """How long the rows may be."""

    sequence_len: PositiveInt = Field(512, description="longest row kept, in tokens")
    eval_sequence_len: PositiveInt | None = Field(
        None, description="longest row kept for evaluation, in tokens; unset means sequence_len"
    )
