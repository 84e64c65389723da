"""What the `orpo` stage reads from the YAML."""

from pydantic import Field, PositiveFloat, PositiveInt

from tunemill.stages.training.keys.training import TrainingKeys


class OrpoConfig(TrainingKeys):
    """Odds ratio preference optimization, full or LoRA."""

    orpo_alpha: PositiveFloat = Field(
        0.1, description="weight of the odds ratio beside the likelihood of the chosen answer"
    )
    sequence_len: PositiveInt = Field(
        512, description="most tokens of a prompt with either answer, BOS and EOS counted: more are cut off"
    )
