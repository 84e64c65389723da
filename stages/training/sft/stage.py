"""The `sft` stage: supervised fine-tuning of all parameters, or of an adapter."""

from tunemill.stages.training.sft.config import SftConfig
from tunemill.stages.training.training_stage import training_stage

SFT = training_stage(
    "tunemill.stages.training.sft.body:sft",
    SftConfig,
    "Supervised fine-tuning with the Hugging Face Trainer.",
    version=5,
)
