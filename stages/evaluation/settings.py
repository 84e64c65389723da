"""`pipeline.evaluation`: what every evaluation reads of it."""

from pydantic import Field, PositiveInt

from tunemill.stages.declaration import Settings

# Why no evaluation reads the keys that each of them has.
NOTHING_EVALUATED = (
    "no model is evaluated here: that takes held-out rows, from test_datasets or val_set_size, and no empty "
    "pipeline.evaluate"
)


class RowsToScore(Settings):
    """Which of the held-out rows are scored."""

    max_rows: PositiveInt | None = Field(None, description="look at the first rows only; unset: all of them")

    def numbers(self, count: int) -> range:
        """The numbers of those rows, of so many."""
        return range(min(count, self.max_rows or count))
