"""The `orpo` stage: learning from pairs of answers without a reference model."""

from tunemill.stages.training.orpo.config import OrpoConfig
from tunemill.stages.training.pairs_stage import pairs_stage

ORPO = pairs_stage(
    "tunemill.stages.training.orpo.body:orpo",
    OrpoConfig,
    "Odds ratio preference optimization: the chosen answer likelier, the rejected one less likely.",
    version=5,
)
