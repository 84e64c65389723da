"""The `grpo` stage: learning from completions of the model's own."""

from tunemill.stages.training.grpo.config import GrpoConfig
from tunemill.stages.training.online.online_stage import online_stage

GRPO = online_stage(
    "tunemill.stages.training.grpo.body:grpo",
    GrpoConfig,
    "Online learning by GRPO: completions are sampled, judged and learned from.",
    version=2,
)
