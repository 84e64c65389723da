"""The keys by which held-out rows decide the result: when training stops, which step's weights are kept, the rates."""

from collections.abc import Iterator
from typing import ClassVar, Self

from pydantic import Field, PositiveInt, model_validator

from tunemill.stages.choices import nearest
from tunemill.stages.declaration import ConflictError, Idle
from tunemill.stages.training.keys.rhythm import RhythmKeys
from tunemill.stages.training.keys.schedule import ScheduleKeys

# What is compared where nothing says so.
METRIC = "eval_loss"
# What decides together with the held-out rows, where it only looks at them otherwise: when they are scored, and how,
# for the last bits of a figure may tell two steps apart.
DECIDING = frozenset(
    {
        "evaluation_data",
        "eval_steps",
        "evals_per_epoch",
        "eval_strategy",
        "eval_batch_size",
        "eval_sample_packing",
    }
)


class BestKeys(RhythmKeys, ScheduleKeys):
    """With these the held-out rows, and when they are scored, are part of the key.

    `usual_metric` is compared where nothing says which. `own_figures`: the metrics of the method's `LossParts`, by
    which held-out rows are scored too, as `eval_...`.
    """

    usual_metric: ClassVar[str] = METRIC
    own_figures: ClassVar[tuple[str, ...]] = ()

    early_stopping_patience: PositiveInt | None = Field(
        None, description="stop after so many evaluations in a row that are no better than the best"
    )
    load_best_model_at_end: bool = Field(
        False, description="the result is the model of the best evaluation, not of the last step"
    )
    metric_for_best_model: str | None = Field(
        None,
        description="figure of the held-out rows that is compared; unset: eval_loss, with rewards eval_reward",
    )
    greater_is_better: bool | None = Field(
        None, description="whether more of it is better; unset: unless its name ends with loss"
    )

    @property
    def keeps_best(self) -> bool:
        """Whether the result is the model of the best evaluation."""
        return self.load_best_model_at_end or self.save_strategy == "best"

    @property
    def compares_evaluations(self) -> bool:
        """Whether evaluations are compared, to stop or to keep the best."""
        return self.keeps_best or self.early_stopping_patience is not None

    @property
    def held_out_rows_decide(self) -> bool:
        """Whether the result depends on held-out rows."""
        return self.compares_evaluations or self.chosen_scheduler.follows_held_out

    @property
    def best_metric(self) -> str:
        """The figure that is compared, by its whole name."""
        given = self.metric_for_best_model or self.usual_metric
        return given if given.startswith("eval_") else f"eval_{given}"

    @property
    def figures(self) -> tuple[str, ...]:
        """What held-out rows are scored by, by whole names."""
        return (METRIC, *(f"eval_{name}" for name in self.own_figures))

    @property
    def more_is_better(self) -> bool:
        """Whether more of it is better."""
        by_name = not self.best_metric.endswith("loss")
        return by_name if self.greater_is_better is None else self.greater_is_better

    def deciding(self) -> frozenset[str]:
        """Held-out rows and when they are scored, where they decide."""
        if not self.held_out_rows_decide:
            return super().deciding()
        best = {"save_strategy"} if self.save_strategy == "best" else set()
        return super().deciding() | DECIDING | best

    def unused_inputs(self) -> frozenset[str]:
        """Nothing that decides is unused."""
        return super().unused_inputs() - self.deciding()

    @model_validator(mode="after")
    def _check_best(self) -> Self:
        asked = {
            "early_stopping_patience": self.early_stopping_patience is not None,
            "load_best_model_at_end": self.load_best_model_at_end,
            "save_strategy": self.save_strategy == "best",
            "lr_scheduler": self.chosen_scheduler.follows_held_out,
        }
        key = next((key for key, is_set in asked.items() if is_set), None)
        if key is None:
            return self
        named = f"lr_scheduler: {self.lr_scheduler}" if key == "lr_scheduler" else key
        if not self.has_held_out_rows:
            raise ConflictError(
                f"{named} goes by held-out rows, and there are none. Set val_set_size or test_datasets, or take it "
                f"out",
                key,
            )
        if self.eval_strategy == "no":
            raise ConflictError(
                f"no, but {named} goes by evaluations. Give eval_steps or evals_per_epoch in its place",
                "eval_strategy",
                key,
            )
        return self

    @model_validator(mode="after")
    def _check_metric(self) -> Self:
        if self.held_out_rows_decide and self.best_metric not in self.figures:
            near = nearest(self.best_metric, self.figures) if len(self.figures) > 1 else [METRIC]
            raise ConflictError(
                f"metric_for_best_model: {self.metric_for_best_model} is no figure of held-out rows here. There are: "
                f"{', '.join(self.figures)}",
                "metric_for_best_model",
                suggestion=near[0] if near else None,
            )
        return self

    @property
    def held_out_mode(self) -> str:
        """What a scheduler that follows held-out rows waits for: that the figure falls (`min`), or that it rises."""
        return "max" if self.more_is_better else "min"

    @model_validator(mode="after")
    def _check_mode(self) -> Self:
        given = (self.lr_scheduler_kwargs or {}).get("mode")
        if self.chosen_scheduler.follows_held_out and given not in (None, self.held_out_mode):
            raise ConflictError(
                f"lr_scheduler_kwargs: mode: {given}, and of {self.best_metric} "
                f"{'more' if self.more_is_better else 'less'} is better. Take it out, or set greater_is_better",
                "lr_scheduler_kwargs",
                "greater_is_better",
            )
        return self

    def idle(self) -> Iterator[Idle]:
        """How to compare what is not compared."""
        yield from super().idle()
        if not self.held_out_rows_decide:
            reason = (
                "nothing compares evaluations: neither early_stopping_patience nor load_best_model_at_end, nor does "
                "lr_scheduler go by them"
            )
            if self.metric_for_best_model is not None:
                yield Idle("metric_for_best_model", reason)
            if self.greater_is_better is not None:
                yield Idle("greater_is_better", reason)
