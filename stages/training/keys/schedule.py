"""The keys of the learning rate."""

from collections.abc import Iterator
from typing import Any, Literal, Self, get_args

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from tunemill.stages.choices import nearest
from tunemill.stages.declaration import ConflictError, Idle, StageConfig
from tunemill.stages.training.arguments import read_argument, read_arguments
from tunemill.stages.training.schedules.table import (
    OWN_ARGUMENTS,
    SCHEDULERS,
    Scheduler,
)

SchedulerName = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt",
    "cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay", "one_cycle", "rex", "log_sweep",
    "reduce_lr_on_plateau", "greedy",
]  # fmt: skip
assert set(get_args(SchedulerName)) == set(SCHEDULERS), "the names and the table say the same"
# What each of Axolotl's own keys needs.
NEEDS = {
    "cosine_min_lr_ratio": ("cosine", "rex"),
    "cosine_constant_lr_ratio": ("cosine",),
    "lr_quadratic_warmup": ("cosine",),
}
RESTART_KEYS = ("jagged_restart_warmup_steps", "jagged_restart_anneal_steps")
POLYNOMIAL_END = 1e-7
# Between which transformers' GreedyLR moves the rate where nothing is given: the first is above most learning rates.
GREEDY_BOUNDS = {"min_lr": 1e-3, "max_lr": 1.0}


class ScheduleKeys(StageConfig):
    """How the learning rate rises and falls."""

    learning_rate: PositiveFloat = Field(description="peak learning rate")
    lr_scheduler: SchedulerName = Field("cosine", description="how the learning rate falls")
    lr_scheduler_kwargs: dict[str, Any] | None = Field(None, description="arguments of the scheduler")
    cosine_min_lr_ratio: float | None = Field(
        None, ge=0, le=1, description="cosine, rex: last over peak learning rate"
    )
    cosine_constant_lr_ratio: float | None = Field(
        None, ge=0, le=1, description="cosine: share of all steps after which the rate stays at its minimum"
    )
    lr_quadratic_warmup: bool | None = Field(
        None, description="cosine: the rate rises along a parabola, not a line"
    )
    warmup_steps: NonNegativeFloat | None = Field(
        None,
        description="steps of rising learning rate (below 1: share of all steps); unset: 3%, at most 100",
    )
    warmup_ratio: float | None = Field(
        None, ge=0, lt=1, description="share of all steps with rising learning rate"
    )
    jagged_restart_steps: PositiveInt | None = Field(
        None, description="steps between restarts of the learning rate"
    )
    jagged_restart_warmup_steps: PositiveInt | None = Field(
        None, description="steps of rising learning rate after a restart; unset: 10"
    )
    jagged_restart_anneal_steps: PositiveInt | None = Field(
        None, description="steps of falling learning rate before a restart; unset: 1"
    )

    @property
    def chosen_scheduler(self) -> Scheduler:
        """What the scheduler's name stands for."""
        return SCHEDULERS[self.lr_scheduler]

    @property
    def scheduler_arguments(self) -> dict[str, Any]:
        """`lr_scheduler_kwargs` as values of the types that the scheduler takes."""
        kinds, given = self.chosen_scheduler.takes, self.lr_scheduler_kwargs or {}
        return read_arguments("lr_scheduler_kwargs", {k: v for k, v in given.items() if v is not None}, kinds)

    @field_validator("warmup_steps", mode="after")
    @classmethod
    def _whole_or_a_share(cls, value: float | None) -> float | None:
        if value is None or 0 < value < 1:
            return value
        if value != int(value):
            raise ValueError("give whole steps, or a share of all steps below 1")
        return int(value)

    @model_validator(mode="after")
    def _check_warmup(self) -> Self:
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            raise ConflictError(
                "warmup_steps and warmup_ratio both say how long to warm up. Keep one",
                "warmup_steps",
                "warmup_ratio",
            )
        return self

    @model_validator(mode="after")
    def _check_arguments(self) -> Self:
        scheduler, given = self.chosen_scheduler, self.lr_scheduler_kwargs or {}
        for name, value in given.items():
            self._refuse(self._fault_of(scheduler, name, value))
        named = [name for name, value in given.items() if value is not None]
        for name in scheduler.needs:
            if name not in named:
                self._refuse(f"{self.lr_scheduler} needs {name}")
        if scheduler.one_of and sum(name in named for name in scheduler.one_of) != 1:
            self._refuse(f"{self.lr_scheduler} needs one of {' and '.join(scheduler.one_of)}, and not both")
        end = self.scheduler_arguments.get("lr_end", POLYNOMIAL_END)
        if self.lr_scheduler == "polynomial" and end >= self.learning_rate:
            raise ConflictError(
                f"lr_scheduler: polynomial falls from learning_rate, here {self.learning_rate:g}, to lr_end, here "
                f"{end:g}: it must be smaller. Set lr_scheduler_kwargs: {{lr_end: 0}}",
                "lr_scheduler_kwargs",
                "learning_rate",
            )
        return self

    @model_validator(mode="after")
    def _check_bounds_of_rates(self) -> Self:
        """A scheduler that lowers the rate from learning_rate begins above where it may end."""
        if not self.chosen_scheduler.follows_held_out:
            return self
        bounds = {**(GREEDY_BOUNDS if self.lr_scheduler == "greedy" else {}), **self.scheduler_arguments}
        least, most = bounds.get("min_lr"), bounds.get("max_lr")
        if least is not None and least >= self.learning_rate:
            self._refuse(
                f"min_lr: {least:g}: the rate falls to it from learning_rate, here {self.learning_rate:g}, so it must "
                f"be smaller. Set it"
            )
        if most is not None and most < self.learning_rate:
            self._refuse(
                f"max_lr: {most:g} is below learning_rate, here {self.learning_rate:g}. Set it higher"
            )
        return self

    def _refuse(self, fault: str | None) -> None:
        if fault:
            raise ConflictError(f"lr_scheduler_kwargs: {fault}", "lr_scheduler_kwargs", "lr_scheduler")

    def _fault_of(self, scheduler: Scheduler, name: str, value: Any) -> str | None:
        """What is wrong with one argument of the scheduler."""
        if name in OWN_ARGUMENTS and name not in scheduler.takes:
            return f"{name} is not set here: {OWN_ARGUMENTS[name]}"
        if name not in scheduler.takes:
            near = nearest(name, sorted(scheduler.takes))
            hint = f". Did you mean {near[0]}?" if near else ""
            takes = ", ".join(sorted(scheduler.takes)) or "no lr_scheduler_kwargs"
            return f"{name}: lr_scheduler: {self.lr_scheduler} takes {takes}{hint}"
        if value is None:
            return None
        try:
            read = read_argument(name, value, scheduler.takes[name])
        except ValueError as error:
            return str(error)
        if name in scheduler.choices and read not in scheduler.choices[name]:
            return f"{name}: must be one of {', '.join(scheduler.choices[name])} (given: {value!r})"
        if name in scheduler.least and read < scheduler.least[name]:
            return f"{name}: must be at least {scheduler.least[name]} (given: {value!r})"
        if name in scheduler.below and read >= scheduler.below[name]:
            return f"{name}: must be below {scheduler.below[name]} (given: {value!r})"
        if name in scheduler.above and read <= scheduler.above[name]:
            return f"{name}: must be greater than {scheduler.above[name]} (given: {value!r})"
        return None

    @model_validator(mode="after")
    def _check_own_keys(self) -> Self:
        for key, schedulers in NEEDS.items():
            if getattr(self, key) and self.lr_scheduler not in schedulers:
                raise ConflictError(
                    f"{key} needs lr_scheduler: {' or '.join(schedulers)}, not {self.lr_scheduler}",
                    key,
                    "lr_scheduler",
                )
        if self.cosine_min_lr_ratio is not None and self.lr_scheduler_kwargs:
            raise ConflictError(
                "cosine_min_lr_ratio and lr_scheduler_kwargs both shape the schedule. Keep one",
                "cosine_min_lr_ratio",
                "lr_scheduler_kwargs",
            )
        if self.cosine_constant_lr_ratio and self.cosine_min_lr_ratio is None:
            raise ConflictError(
                "cosine_constant_lr_ratio needs cosine_min_lr_ratio, the rate that stays: without it the last steps "
                "would train nothing",
                "cosine_constant_lr_ratio",
                "cosine_min_lr_ratio",
            )
        return self

    @field_validator("jagged_restart_steps", *RESTART_KEYS, mode="before")
    @classmethod
    def _false_is_unset(cls, value: object) -> object:
        return None if value is False else value

    @model_validator(mode="after")
    def _check_restarts(self) -> Self:
        if self.jagged_restart_steps is None:
            return self
        if self.lr_scheduler == "one_cycle" or self.chosen_scheduler.follows_held_out:
            what = "goes by held-out rows" if self.chosen_scheduler.follows_held_out else "is a single cycle"
            raise ConflictError(
                f"jagged_restart_steps: {self.lr_scheduler} {what}. Choose another lr_scheduler, such as cosine",
                "jagged_restart_steps",
                "lr_scheduler",
            )
        parts = (self.jagged_restart_warmup_steps or 0) + (self.jagged_restart_anneal_steps or 0)
        if parts > self.jagged_restart_steps:
            raise ConflictError(
                f"jagged_restart_steps: {self.jagged_restart_steps} steps are fewer than the {parts} of rise and fall. "
                f"Restart less often, or shorten these",
                "jagged_restart_steps",
                *RESTART_KEYS,
            )
        return self

    def idle(self) -> Iterator[Idle]:
        """Zeros, and parts of restarts that there are none of."""
        yield from super().idle()
        if self.cosine_constant_lr_ratio == 0:
            yield Idle("cosine_constant_lr_ratio", "0 is as good as unset")
        if self.jagged_restart_steps is None:
            for key in RESTART_KEYS:
                if getattr(self, key) is not None:
                    yield Idle(key, "jagged_restart_steps is unset, so the learning rate never restarts")
