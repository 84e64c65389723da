"""`pipeline.evaluation`: what every evaluation reads of it."""

from pydantic import Field, PositiveInt

from tunemill.stages.declaration import Settings


class RowsToScore(Settings):
    """Which of the held-out rows are scored."""

    max_rows: PositiveInt | None = Field(None, description="look at the first rows only; unset: all of them")
