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

    def written_metrics(self) -> frozenset[str]:
        """What metrics.json may hold: some of it only where there are answers with, or without, a wrong step."""
        shares = ("first_wrong_found", "right_answers_passed", "first_wrong_f1")
        return frozenset({"eval_loss", "step_accuracy", "steps", "rows", *shares})
