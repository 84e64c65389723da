"""The `kto` stage: learning from answers that are judged by themselves, held to the model that training starts from."""

from tunemill.stages.training.kto.config import KtoConfig
from tunemill.stages.training.pairs_stage import pairs_stage

KTO = pairs_stage(
    "tunemill.stages.training.kto.body:kto",
    KtoConfig,
    "Kahneman-Tversky optimization: desirable answers gain against the reference, undesirable ones lose.",
    version=2,
    has_reference=True,
)
