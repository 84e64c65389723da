"""The keys of a sweep: which pipelines one YAML stands for, how they are judged, and what they may cost."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from tunemill.stages.declaration import ConflictError, Idle, Settings, StageConfig, YamlMark

SWEEP = ("pipeline", "sweep")
POINT = ("pipeline", "point")
SETTINGS = ("pipeline", "sweep_settings")


class SweepSettings(Settings):
    """How the points of a sweep are compared, and what the sweep may cost. None of it changes a result."""

    metric: str | None = Field(
        None,
        min_length=1,
        description="the figure by which a point is the best; unset: that of the evaluation by which rows are right",
    )
    of: str | None = Field(
        None,
        min_length=1,
        description="the model that is judged: trained, merged, quantized, or the name of an exported one; unset: the "
        "first of merged, trained and quantized that is evaluated",
    )
    evaluation: str | None = Field(
        None, min_length=1, description="a name of pipeline.evaluations; unset: the default evaluation"
    )
    max_runs: PositiveInt | None = Field(
        None,
        description="so many points are run, the first ones of the grid; the others are said to be left out",
    )
    max_seconds: PositiveFloat | None = Field(
        None, description="after so many seconds `tunemill sweep` starts nothing new; what runs ends as ever"
    )
    rungs: list[PositiveInt] = Field(
        [],
        description="successive halving: steps of the training after which only the share `keep` with the lowest "
        "held-out loss goes on",
    )
    keep: PositiveFloat = Field(
        0.5, lt=1, description="the share of the points that goes on at a rung; at least one does"
    )

    @model_validator(mode="after")
    def _rungs_rise(self) -> "SweepSettings":
        if any(one >= other for one, other in pairwise(self.rungs)):
            raise ValueError("rungs: each must be a later step than the one before")
        if "keep" in self.model_fields_set and not self.rungs:
            raise ValueError("keep: is what goes on at a rung, and there is none. Give rungs, or take it out")
        return self


class SweepKeys(StageConfig):
    """What one YAML is swept over."""

    sweep: Annotated[dict[str, Any] | str | None, YamlMark("pipeline.sweep")] = Field(
        None,
        description="keys with a list of values each, in Axolotl's sweep syntax, or the path of a YAML of them: one "
        "pipeline for each combination; the sets of keys in a list under `_` vary together. With `kind: random` and "
        "`draws` so many points are drawn, also of ranges such as {min: 0.0001, max: 0.01, log: true}",
    )
    sweep_settings: Annotated[SweepSettings | None, YamlMark("pipeline.sweep_settings")] = Field(
        None, description="how the points of a sweep are compared, and what they may cost"
    )

    point: Annotated[str | None, YamlMark("pipeline.point")] = Field(
        None,
        min_length=1,
        description="of a sweep the one point that is meant, as `tunemill plan` lists it; --point NAME says the same",
    )

    @model_validator(mode="after")
    def _a_point_is_of_a_sweep(self) -> "SweepKeys":
        if self.point is not None and self.sweep is None:
            raise ConflictError(
                "there is no sweep here whose point it could be. Give pipeline.sweep, or take it out",
                "point",
                "sweep",
            )
        return self

    def idle(self) -> Iterator[Idle]:
        """Settings of a sweep where there is none."""
        yield from super().idle()
        if self.sweep_settings is not None and self.sweep is None:
            yield Idle("sweep_settings", "there is no sweep here: pipeline.sweep is unset")
