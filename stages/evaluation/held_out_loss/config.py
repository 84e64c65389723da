"""What the `held_out_loss` stage reads."""

from typing import Any, ClassVar

from pydantic import Field, PositiveInt, model_validator

from tunemill.stages.declaration import Entry, StageConfig


class HeldOutLossConfig(StageConfig):
    """Which rows the loss is computed of, and how many at once."""

    entry_lists: ClassVar[tuple[str, ...]] = ()

    max_rows: Entry[PositiveInt | None] = Field(None, description="the first rows only; unset: all of them")
    batch_size: Entry[PositiveInt | None] = Field(
        None, description="rows per forward pass; rounding differs between sizes; unset takes eval_batch_size"
    )
    eval_batch_size: PositiveInt = Field(
        8, description="rows per forward pass; rounding differs between sizes"
    )

    @model_validator(mode="before")
    @classmethod
    def _the_entry_counts_first(cls, data: dict[str, Any]) -> dict[str, Any]:
        """A key that is not read changes no key of the cache."""
        covered = "eval_batch_size" if data.get("batch_size") is not None else ""
        return {name: value for name, value in data.items() if name != covered}

    @property
    def rows_at_once(self) -> int:
        """Rows of a batch."""
        return self.batch_size or self.eval_batch_size
