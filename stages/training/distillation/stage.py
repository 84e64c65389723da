"""The `distillation` stage: learning from what a teacher says of each trained token."""

from tunemill.stages.artifacts import TeacherLogProbs
from tunemill.stages.declaration import Input
from tunemill.stages.training.distillation.config import DistillationConfig
from tunemill.stages.training.training_stage import training_stage

DISTILLATION = training_stage(
    "tunemill.stages.training.distillation.body:distillation",
    DistillationConfig,
    "Knowledge distillation from a teacher's log-probabilities.",
    beside={"teacher_logprobs": Input(TeacherLogProbs, many=True)},
)
