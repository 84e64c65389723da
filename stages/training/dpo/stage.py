"""The `dpo` stage: learning from pairs of answers, held to the model that training starts from."""

from tunemill.stages.training.dpo.config import DpoConfig
from tunemill.stages.training.pairs_stage import pairs_stage

DPO = pairs_stage(
    "tunemill.stages.training.dpo.body:dpo",
    DpoConfig,
    "Direct preference optimization: the chosen answer gains more than the rejected one.",
    has_reference=True,
)
