"""The `ebft` stage: learning from what a frozen model makes of completions."""

from tunemill.stages.training.ebft.config import EbftConfig
from tunemill.stages.training.online.online_stage import online_stage

EBFT = online_stage(
    "tunemill.stages.training.ebft.body:ebft",
    EbftConfig,
    "Online learning by EBFT: completions that a frozen model finds like the answer are learned.",
)
