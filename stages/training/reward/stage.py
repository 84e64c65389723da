"""The `reward` stage: a model that scores whole conversations, the better one of two higher."""

from tunemill.stages.training.pairs_stage import pairs_stage
from tunemill.stages.training.reward.config import RewardConfig

REWARD = pairs_stage(
    "tunemill.stages.training.reward.body:reward",
    RewardConfig,
    "A reward model: one score of a conversation, higher for the better one of a pair.",
)
