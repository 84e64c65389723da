"""What the `orpo` stage reads from the YAML."""

from typing import Self

from pydantic import Field, PositiveFloat, model_validator

from tunemill.stages.choices import nearest
from tunemill.stages.declaration import ConflictError
from tunemill.stages.training.keys.best import METRIC
from tunemill.stages.training.keys.pairs import PairKeys

# What held-out pairs are scored by.
FIGURES = (METRIC, "eval_nll_loss", "eval_log_odds_chosen", "eval_rewards/accuracies", "eval_rewards/margins")


class OrpoConfig(PairKeys):
    """Odds ratio preference optimization, full or LoRA."""

    orpo_alpha: PositiveFloat = Field(
        0.1, description="weight of the odds ratio beside the likelihood of the chosen answer"
    )

    @model_validator(mode="after")
    def _check_metric(self) -> Self:
        if self.held_out_rows_decide and self.best_metric not in FIGURES:
            near = nearest(self.best_metric, FIGURES)
            raise ConflictError(
                f"metric_for_best_model: {self.metric_for_best_model} is no figure of held-out pairs. There are: "
                f"{', '.join(FIGURES)}",
                "metric_for_best_model",
                suggestion=near[0] if near else None,
            )
        return self
