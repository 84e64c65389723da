"""What the `orpo` stage reads from the YAML."""

from typing import ClassVar

from pydantic import Field, PositiveFloat

from tunemill.stages.training.keys.pairs import COMPARED, PairKeys


class OrpoConfig(PairKeys):
    """Odds ratio preference optimization, full or LoRA."""

    own_figures: ClassVar[tuple[str, ...]] = ("nll_loss", "log_odds_chosen", *COMPARED)

    orpo_alpha: PositiveFloat = Field(
        0.1, description="weight of the odds ratio beside the likelihood of the chosen answer"
    )
