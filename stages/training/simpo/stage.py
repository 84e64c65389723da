"""The `simpo` stage: pairs of answers, compared by their mean log probabilities."""

from tunemill.stages.training.pairs_stage import pairs_stage
from tunemill.stages.training.simpo.config import SimpoConfig

SIMPO = pairs_stage(
    "tunemill.stages.training.simpo.body:simpo",
    SimpoConfig,
    "Simple preference optimization: the chosen answer likelier per token than the rejected one, by a margin.",
)
