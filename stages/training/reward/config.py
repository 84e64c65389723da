"""What the `reward` stage reads from the YAML."""

from typing import ClassVar

from pydantic import Field, NonNegativeFloat, PositiveInt, field_validator

from tunemill.stages.declaration import Runtime
from tunemill.stages.models.heads import Head
from tunemill.stages.training.keys.padding import PaddedKeys

# One score, for "better" is an order.
REWARD = Head("sequence", 1)


class RewardConfig(PaddedKeys):
    """A model that gives the better one of two answers the higher score, full or LoRA."""

    own_figures: ClassVar[tuple[str, ...]] = ("accuracy", "margin", "mean_reward")

    center_rewards_coefficient: NonNegativeFloat = Field(
        0.0,
        description="weight of the square of the sum of both scores of a pair, which holds scores around 0",
    )
    num_labels: Runtime[PositiveInt | None] = Field(
        None,
        description="scores of the model: there is one whatever this says, and another number is refused",
    )

    @field_validator("num_labels")
    @classmethod
    def _one_score(cls, value: int | None) -> int | None:
        if value not in (None, REWARD.labels):
            raise ValueError(
                f"{value}: which answer of a pair is better is learnt from the difference of two scores, one of either "
                f"answer. Set num_labels: 1, or take it out"
            )
        return value

    @property
    def head(self) -> Head:
        """One score of a whole sequence."""
        return REWARD
