"""The `gdpo` stage: learning from completions of the model's own, by several rewards."""

from tunemill.stages.training.gdpo.config import GdpoConfig
from tunemill.stages.training.online.online_stage import online_stage

GDPO = online_stage(
    "tunemill.stages.training.gdpo.body:gdpo",
    GdpoConfig,
    "Online learning by GDPO: completions are sampled, judged and learned from.",
    version=2,
)
