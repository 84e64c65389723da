"""`pipeline.gates`: what an evaluated model must reach before anything goes on."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, model_validator

from tunemill.stages.declaration import Settings
from tunemill.stages.evaluation.statistics.directions import better_of

CannotTell = Literal["block", "pass"]
# The key that names one of several evaluations.
NAMED = "evaluation"
# Which of a pipeline's models speaks for it where nobody says which: the first of these that is evaluated.
SPEAKING = ("merged", "trained", "quantized")


def evaluation_node(what: str, evaluation: str | None) -> str:
    """The node that evaluates a model: the default evaluation, or one of `pipeline.evaluations`."""
    return f"evaluation_of_{what}" if evaluation is None else f"evaluation_{evaluation}_of_{what}"


class Gate(Settings):
    """One bound on one metric of one model, or on how far it may fall behind another model."""

    metric: str = Field(min_length=1, description="a metric of the evaluation, such as exact_match")
    of: str = Field(
        min_length=1,
        description="the model: base, trained, merged, quantized, or the name of an exported one",
    )
    min: float | None = Field(None, description="the metric must be at least this")
    max: float | None = Field(None, description="the metric must be at most this")
    max_drop_from: str | None = Field(
        None,
        min_length=1,
        description="another model: on the same rows, `of` may be worse than it by at most `margin`",
    )
    margin: NonNegativeFloat = Field(
        0.0, description="max_drop_from: how much worse is still allowed, in units of the metric"
    )
    confidence: float = Field(
        0.95, ge=0.5, lt=1, description="of the interval that must lie on one side of the bound"
    )
    evaluation: str | None = Field(
        None, min_length=1, description="a name of pipeline.evaluations; unset: the default evaluation"
    )
    cannot_tell: CannotTell = Field(
        "block",
        description="what becomes of what follows where there are too few rows to tell: block, or pass",
    )

    @model_validator(mode="after")
    def _asks_for_something(self) -> "Gate":
        if self.min is None and self.max is None and self.max_drop_from is None:
            raise ValueError("asks for nothing: give min, max or max_drop_from")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min: {self.min:g} is more than max: {self.max:g}, which no model can pass")
        if self.max_drop_from is None and "margin" in self.model_fields_set:
            raise ValueError("margin: is how much may be lost on another model. Name it as max_drop_from")
        if self.max_drop_from == self.of:
            raise ValueError(f"max_drop_from: {self.of} is compared with itself. Name another model")
        if self.max_drop_from is not None and better_of(self.metric) == "neither":
            raise ValueError(
                f"max_drop_from: of {self.metric} neither more nor less is worse. Give min or max instead"
            )
        return self

    @property
    def node(self) -> str:
        """The node of the evaluation that it is about."""
        return evaluation_node(self.of, self.evaluation)

    @property
    def other_node(self) -> str | None:
        """The node of the evaluation that it is compared with."""
        return None if self.max_drop_from is None else evaluation_node(self.max_drop_from, self.evaluation)

    @property
    def nodes(self) -> tuple[str, ...]:
        """All evaluations that it speaks of."""
        return (self.node,) if self.other_node is None else (self.node, self.other_node)

    @property
    def words(self) -> str:
        """What it asks for: `exact_match of quantized at least 0.9`."""
        asked = [] if self.min is None else [f"at least {self.min:g}"]
        asked += [] if self.max is None else [f"at most {self.max:g}"]
        if self.max_drop_from is not None:
            asked.append(f"at most {self.margin:g} worse than {self.max_drop_from}")
        where = "" if self.evaluation is None else f" in {self.evaluation}"
        return f"{self.metric} of {self.of}{where} {' and '.join(asked)}"


class LeakageGate(Gate):
    """No held-out row is trained on: no entry of `pipeline.gates`, but what `pipeline.leakage: fail` asks for.

    `of` is the node that looks for such rows.
    """

    metric: str = "leaked_rows"
    max: float | None = 0.0

    @property
    def node(self) -> str:
        """The node that looks for such rows."""
        return self.of

    @property
    def words(self) -> str:
        """What it asks for."""
        return f"no held-out row is trained on ({self.of})"
