"""The `ipo` stage: pairs of answers, whose margin against the reference is pulled to a number."""

from tunemill.stages.training.ipo.config import IpoConfig
from tunemill.stages.training.pairs_stage import pairs_stage

IPO = pairs_stage(
    "tunemill.stages.training.ipo.body:ipo",
    IpoConfig,
    "Identity preference optimization: the chosen answer gains more than the rejected one, by so much.",
    has_reference=True,
)
