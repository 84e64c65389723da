"""The keys of what a pipeline's results are held to."""

from typing import Annotated, Literal

from pydantic import Field

from tunemill.stages.declaration import StageConfig, YamlMark
from tunemill.stages.evaluation.gate import Gate


class GateKeys(StageConfig):
    """Gates of evaluated models, and of the rows that they are evaluated on."""

    gates: Annotated[list[Gate], YamlMark("pipeline.gates")] = Field(
        [], description="what metrics of evaluated models must reach: nothing goes on past a gate that fails"
    )
    leakage: Annotated[Literal["warn", "fail", False], YamlMark("pipeline.leakage")] = Field(
        "warn",
        description="held-out rows that are trained on, whole or inside of longer rows: warn, fail (a gate that "
        "lets none pass), or false, which looks for none",
    )
