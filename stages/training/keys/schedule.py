"""The keys of the learning rate."""

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator

from tunemill.stages.declaration import ConflictError, StageConfig, not_yet

SchedulerName = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt",
    "cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay",
]  # fmt: skip
WITHOUT_WARMUP = {"constant"}
# transformers drops lr_scheduler_kwargs for these without a word.
WITHOUT_KWARGS = {"constant", "constant_with_warmup"}


class ScheduleKeys(StageConfig):
    """How the learning rate rises and falls."""

    learning_rate: PositiveFloat = Field(description="peak learning rate")
    lr_scheduler: SchedulerName = Field("cosine", description="how the learning rate falls")
    lr_scheduler_kwargs: dict[str, Any] | None = Field(None, description="arguments of the scheduler")
    cosine_min_lr_ratio: float | None = Field(
        None, ge=0, le=1, description="cosine: last over peak learning rate"
    )
    warmup_steps: NonNegativeInt | None = Field(
        None, description="steps of rising learning rate; unset: 3% of all steps, at most 100"
    )
    warmup_ratio: float | None = Field(
        None, ge=0, lt=1, description="share of all steps with rising learning rate"
    )

    _schedulers_to_come = not_yet("lr_scheduler", "one_cycle", "rex", "reduce_lr_on_plateau", "greedy")

    @property
    def scheduler(self) -> tuple[str, dict[str, Any]]:
        """The scheduler's name in transformers, and its arguments."""
        if self.cosine_min_lr_ratio is not None:
            return "cosine_with_min_lr", {"min_lr_rate": self.cosine_min_lr_ratio}
        return self.lr_scheduler, self.lr_scheduler_kwargs or {}

    @model_validator(mode="after")
    def _check_warmup(self) -> Self:
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            raise ConflictError(
                "warmup_steps and warmup_ratio both say how long to warm up. Keep one",
                "warmup_steps",
                "warmup_ratio",
            )
        warms_up = bool(self.warmup_steps or self.warmup_ratio)
        if warms_up and self.lr_scheduler in WITHOUT_WARMUP:
            raise ConflictError(
                f"lr_scheduler: {self.lr_scheduler} has no warmup. Use constant_with_warmup, or remove the warmup",
                "lr_scheduler",
                "warmup_steps" if self.warmup_steps else "warmup_ratio",
            )
        return self

    @model_validator(mode="after")
    def _check_scheduler(self) -> Self:
        if self.lr_scheduler_kwargs and self.lr_scheduler in WITHOUT_KWARGS:
            raise ConflictError(
                f"lr_scheduler: {self.lr_scheduler} takes no lr_scheduler_kwargs. Remove them, or choose another "
                f"scheduler",
                "lr_scheduler_kwargs",
                "lr_scheduler",
            )
        if self.cosine_min_lr_ratio is not None and self.lr_scheduler != "cosine":
            raise ConflictError(
                f"cosine_min_lr_ratio needs lr_scheduler: cosine, not {self.lr_scheduler}",
                "cosine_min_lr_ratio",
                "lr_scheduler",
            )
        if self.cosine_min_lr_ratio is not None and self.lr_scheduler_kwargs:
            raise ConflictError(
                "cosine_min_lr_ratio and lr_scheduler_kwargs both shape the schedule. Keep one",
                "cosine_min_lr_ratio",
                "lr_scheduler_kwargs",
            )
        return self
