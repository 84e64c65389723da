"""What `type: _synthetic` reads: rows of random tokens, for benchmarks and tests."""

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from tunemill.stages.declaration import ConflictError, Entry, EntryOrTop, Runtime, StageConfig


class SyntheticConfig(StageConfig):
    """How many rows of random tokens, how long, and of which tokens."""

    path: Runtime[Entry[str | None]] = Field(
        None, description="a name for the rows: they are made up, and nothing is read"
    )
    type: Entry[Literal["_synthetic"]] = Field(description="rows of random tokens, all trained on")
    length: Entry[PositiveInt] = Field(1000, description="rows")
    sequence_length: Entry[PositiveInt | None] = Field(
        None, description="tokens of each row; unset means sequence_len"
    )
    sequence_len: PositiveInt = Field(512, description="tokens of each row where sequence_length is unset")
    min_input_id: Entry[NonNegativeInt] = Field(100, description="smallest token id")
    max_input_id: Entry[PositiveInt | None] = Field(
        None, description="the token ids are below this one; unset means the size of the vocabulary"
    )
    seed: EntryOrTop[NonNegativeInt] = Field(42, description="which random tokens")

    @property
    def row_tokens(self) -> int:
        """Tokens of each row."""
        return self.sequence_length or self.sequence_len

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_input_id is not None and self.max_input_id <= self.min_input_id:
            raise ConflictError(
                f"max_input_id: {self.max_input_id} must be more than min_input_id: {self.min_input_id}; "
                "the token ids are below it",
                "max_input_id",
                "min_input_id",
            )
        return self
