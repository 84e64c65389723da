"""What the `gdpo` stage reads from the YAML."""

from typing import ClassVar, Self

from pydantic import model_validator

from tunemill.stages.declaration import ConflictError
from tunemill.stages.training.online.policy_keys import Aggregation, PolicyKeys


class GdpoConfig(PolicyKeys):
    """Group reward-decoupled policy optimization, full or LoRA."""

    usual_aggregation: ClassVar[Aggregation] = "normalize_then_sum"

    @model_validator(mode="after")
    def _check_aggregation(self) -> Self:
        if self.aggregation != self.usual_aggregation:
            raise ConflictError(
                "trl.multi_objective_aggregation: rl: gdpo is normalize_then_sum. Use rl: grpo, or remove it",
                "multi_objective_aggregation",
            )
        return self
