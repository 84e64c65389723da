"""What the `simpo` stage reads from the YAML."""

from typing import ClassVar

from pydantic import Field, NonNegativeFloat, PositiveFloat

from tunemill.stages.training.keys.pairs import COMPARED, PairKeys


class SimpoConfig(PairKeys):
    """Simple preference optimization, full or LoRA. Names and defaults are Axolotl's and TRL's."""

    own_figures: ClassVar[tuple[str, ...]] = ("nll_loss", *COMPARED)

    rl_beta: PositiveFloat = Field(
        0.1, description="scale of the difference between the answers' mean log probabilities"
    )
    simpo_gamma: NonNegativeFloat = Field(0.5, description="margin that the scaled difference shall exceed")
    cpo_alpha: NonNegativeFloat = Field(
        1.0, description="weight of the likelihood of the chosen answer; 0 is SimPO as published"
    )
