"""The `process_reward` stage: a model that judges each step of an answer."""

from tunemill.stages.training.process_reward.config import ProcessRewardConfig
from tunemill.stages.training.training_stage import training_stage

PROCESS_REWARD = training_stage(
    "tunemill.stages.training.process_reward.body:process_reward",
    ProcessRewardConfig,
    "A process reward model: which steps of an answer are right.",
)
