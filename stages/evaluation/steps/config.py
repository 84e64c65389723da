"""What the `step_evaluation` stage reads from the YAML."""

from typing import Annotated

from pydantic import Field, PositiveInt

from tunemill.stages.declaration import StageConfig, YamlMark
from tunemill.stages.evaluation.settings import RowsToScore


class StepEvaluationConfig(StageConfig):
    """How held-out answers in judged steps are scored."""

    eval_batch_size: PositiveInt = Field(
        8, description="rows per forward pass; rounding differs between sizes"
    )
    evaluation: Annotated[RowsToScore, YamlMark("pipeline.evaluation")] = Field(
        RowsToScore(), description="which rows are scored"
    )
