"""What the `orpo` stage reads from the YAML."""

from pydantic import Field, PositiveFloat

from tunemill.stages.training.keys.pairs import PairKeys


class OrpoConfig(PairKeys):
    """Odds ratio preference optimization, full or LoRA."""

    orpo_alpha: PositiveFloat = Field(
        0.1, description="weight of the odds ratio beside the likelihood of the chosen answer"
    )
