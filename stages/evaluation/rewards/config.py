"""What the `reward_evaluation` stage reads from the YAML."""

from typing import Annotated

from pydantic import Field, PositiveInt

from tunemill.stages.declaration import StageConfig, YamlMark
from tunemill.stages.evaluation.settings import RowsToScore


class RewardEvaluationConfig(StageConfig):
    """How held-out pairs are scored."""

    eval_batch_size: PositiveInt = Field(
        8, description="pairs per forward pass; rounding differs between sizes"
    )
    evaluation: Annotated[RowsToScore, YamlMark("pipeline.evaluation")] = Field(
        RowsToScore(), description="which rows are scored"
    )

    def written_metrics(self) -> frozenset[str]:
        """What metrics.json holds."""
        return frozenset(
            {"eval_loss", "accuracy", "margin", "mean_reward", "min_reward", "max_reward", "rows"}
        )
