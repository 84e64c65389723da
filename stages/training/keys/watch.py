"""The keys that watch a run: what stops it, and what is looked at beside its steps."""

from collections.abc import Iterator
from typing import Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from tunemill.stages.declaration import ConflictError, Idle, Runtime, StageConfig

PATIENCE = 3


class WatchKeys(StageConfig):
    """None of them changes a weight of a run that goes on."""

    loss_watchdog_threshold: Runtime[PositiveFloat | None] = Field(
        None, description="stop a run whose loss stays above this: one that goes on has the same weights"
    )
    loss_watchdog_patience: Runtime[PositiveInt | None] = Field(
        None, description=f"steps in a row above it, unset {PATIENCE}: one that goes on has the same weights"
    )
    include_tokens_per_second: Runtime[bool | None] = Field(
        None, description="report tokens per second: shows the run, changes no weight"
    )
    include_tkps: Runtime[bool | None] = Field(
        None, description="report tokens per second: shows the run, changes no weight"
    )
    auto_resume_from_checkpoints: Runtime[bool | None] = Field(
        None, description="go on from the last checkpoint: an interrupted run always does"
    )
    save_only_model: Runtime[bool] = Field(
        False, description="checkpoints of the model alone: a checkpoint is for resuming, which needs more"
    )

    @property
    def watchdog_patience(self) -> int:
        """Steps in a row above the threshold that stop a run."""
        return self.loss_watchdog_patience or PATIENCE

    @model_validator(mode="after")
    def _check_watchdog(self) -> Self:
        if self.loss_watchdog_patience is not None and self.loss_watchdog_threshold is None:
            raise ConflictError(
                "loss_watchdog_patience counts steps above loss_watchdog_threshold; give that too",
                "loss_watchdog_patience",
                "loss_watchdog_threshold",
            )
        return self

    def idle(self) -> Iterator[Idle]:
        """What happens anyway."""
        yield from super().idle()
        for key, value in (
            ("include_tokens_per_second", self.include_tokens_per_second),
            ("include_tkps", self.include_tkps),
        ):
            if value:
                yield Idle(key, "tokens per second are always reported")
        if self.auto_resume_from_checkpoints:
            yield Idle(
                "auto_resume_from_checkpoints", "an interrupted run always goes on from its last checkpoint"
            )
        if self.save_only_model:
            reason = (
                "checkpoints are there to resume from, with the optimizer's state, and are removed once the result is "
                "kept, which is the model alone"
            )
            yield Idle("save_only_model", reason)
