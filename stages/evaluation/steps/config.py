"""What the `step_evaluation` stage reads from the YAML."""

from typing import Annotated

from pydantic import Field, PositiveInt

from tunemill.stages.declaration import Settings, StageConfig, YamlMark


class StepEvaluationSettings(Settings):
    """`pipeline.evaluation`: which rows."""

    max_rows: PositiveInt | None = Field(None, description="look at the first rows only; unset: all of them")


class StepEvaluationConfig(StageConfig):
    """How held-out answers in judged steps are scored."""

    eval_batch_size: PositiveInt = Field(
        8, description="rows per forward pass; rounding differs between sizes"
    )
    evaluation: Annotated[StepEvaluationSettings, YamlMark("pipeline.evaluation")] = Field(
        StepEvaluationSettings(), description="which rows to look at"
    )
