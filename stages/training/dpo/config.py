"""What the `dpo` stage reads from the YAML."""

from pydantic import Field, PositiveFloat

from tunemill.stages.training.keys.pairs import PairKeys


class DpoConfig(PairKeys):
    """Direct preference optimization, full or LoRA."""

    rl_beta: PositiveFloat = Field(
        0.1, description="how strongly the model is held to the one it starts from"
    )
