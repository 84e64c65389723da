"""The keys that say when training reports, saves and evaluates. None of them changes a weight."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, field_validator, model_validator

from tunemill.stages.declaration import ConflictError, GraphMark, Idle, Runtime, StageConfig

NOTHING_HELD_OUT = "there is nothing to evaluate on: neither test_datasets nor val_set_size"
# What says when, for checkpoints and for evaluations: each some steps, so often an epoch, or a strategy.
RHYTHMS = (
    ("save_steps", "saves_per_epoch", "save_strategy"),
    ("eval_steps", "evals_per_epoch", "eval_strategy"),
)


class RhythmKeys(StageConfig):
    """What happens beside the steps, and when."""

    logging_steps: Runtime[PositiveInt | None] = Field(
        None, description="steps between two reports: shows the run, changes no weight"
    )
    save_steps: Runtime[NonNegativeFloat | None] = Field(
        None, description="steps (below 1: share of all steps) between checkpoints: for resuming only"
    )
    saves_per_epoch: Runtime[NonNegativeInt | None] = Field(
        None, description="checkpoints per epoch: for resuming only"
    )
    save_strategy: Runtime[Literal["no", "epoch", "steps", "best"] | None] = Field(
        None,
        description="when checkpoints are written, unset at each epoch: for resuming only; best: at each epoch, and "
        "the result is the best evaluation's, as with load_best_model_at_end",
    )
    save_total_limit: Runtime[PositiveInt] = Field(2, description="checkpoints kept: for resuming only")
    eval_steps: Runtime[NonNegativeFloat | None] = Field(
        None,
        description="steps (below 1: share of all steps) between evaluations: they leave the weights alone",
    )
    evals_per_epoch: Runtime[NonNegativeInt | None] = Field(
        None, description="evaluations per epoch, 0: none: they leave the weights alone"
    )
    eval_strategy: Runtime[Literal["no", "epoch", "steps"] | None] = Field(
        None, description="when to evaluate, unset never: evaluations leave the weights alone"
    )
    eval_batch_size: Runtime[PositiveInt | None] = Field(
        None, description="rows per evaluation pass, unset as micro_batch_size: they leave the weights alone"
    )
    has_held_out_rows: Annotated[Runtime[bool], GraphMark()] = Field(
        True, description="whether the pipeline holds rows out: without them nothing is evaluated"
    )

    @field_validator("save_strategy", "eval_strategy", mode="before")
    @classmethod
    def _no_is_no_boolean(cls, value: object) -> object:
        # YAML 1.1 reads a bare `no` as false.
        return "no" if value is False else value

    @field_validator("eval_strategy", mode="before")
    @classmethod
    def _best_says_no_step(cls, value: object) -> object:
        if value == "best":
            raise ValueError(
                "best: which evaluation is the best is known once there are some; write save_strategy: best, and "
                "eval_steps or eval_strategy: epoch"
            )
        return value

    @model_validator(mode="after")
    def _check_rhythm(self) -> Self:
        for steps_key, epoch_key, strategy_key in RHYTHMS:
            if steps_key == "eval_steps" and not self.has_held_out_rows:
                continue
            steps, per_epoch = getattr(self, steps_key), getattr(self, epoch_key)
            strategy = getattr(self, strategy_key)
            if steps and per_epoch:
                raise ConflictError(
                    f"{steps_key} and {epoch_key} exclude each other. Keep one", steps_key, epoch_key
                )
            if steps and steps > 1 and steps != int(steps):
                raise ConflictError(
                    f"{steps_key}: {steps}: give whole steps, or a share of all steps below 1", steps_key
                )
            given = steps_key if steps else epoch_key if per_epoch else None
            if strategy in ("no", "epoch") and given:
                raise ConflictError(
                    f"{strategy_key}: {strategy} and {given} exclude each other. Keep one",
                    strategy_key,
                    given,
                )
            if strategy == "steps" and not given:
                raise ConflictError(f"{strategy_key}: steps needs {steps_key}", strategy_key, steps_key)
        return self

    def unused_inputs(self) -> frozenset[str]:
        """Held-out rows that are never scored while training."""
        asked = self.eval_steps or self.evals_per_epoch or self.eval_strategy == "epoch"
        return frozenset() if asked else frozenset({"evaluation_data"})

    def idle(self) -> Iterator[Idle]:
        """Zeros, and evaluations of nothing."""
        yield from super().idle()
        for steps_key, epoch_key, strategy_key in RHYTHMS:
            keys = (steps_key, epoch_key, strategy_key)
            if steps_key == "eval_steps" and not self.has_held_out_rows:
                for key in (*keys, "eval_batch_size"):
                    if self.is_set(key) and getattr(self, key) != "no":
                        yield Idle(key, NOTHING_HELD_OUT)
                continue
            for key in (steps_key, epoch_key):
                if getattr(self, key) == 0:
                    yield Idle(key, "0 is as good as unset")
