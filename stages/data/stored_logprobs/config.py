"""What the `stored_logprobs` stage reads: an entry of `datasets:`."""

from typing import ClassVar

from pydantic import Field, PositiveFloat

from tunemill.stages.declaration import Entry, Runtime, StageConfig


class StoredLogprobsConfig(StageConfig):
    """Where a row has a teacher's log-probabilities."""

    entry_lists: ClassVar[tuple[str, ...]] = ("datasets",)

    path: Runtime[Entry[str | None]] = Field(
        None, description="where the rows came from: named in error messages and nowhere else"
    )
    logprobs_field: Entry[str | None] = Field(
        None,
        min_length=1,
        description="distillation: field of a teacher's log-probabilities: for each token of the row, of its end, or "
        "that is trained on, the likeliest tokens",
    )
    temperature: Entry[PositiveFloat] = Field(
        1.0, description="distillation: the temperature that these log-probabilities were computed at"
    )
