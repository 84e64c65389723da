"""The `distillation` stage: learning from what a teacher says of each trained token."""

from tunemill.stages.artifacts import Adapter, EvaluationData, Model, TeacherLogProbs, TrainingData
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.training.checkpoints import newest_complete
from tunemill.stages.training.distillation.config import DistillationConfig
from tunemill.stages.training.method import LIBRARIES, MONITORS

DISTILLATION = Stage(
    name="distillation",
    version=1,
    config=DistillationConfig,
    inputs={
        "base_model": Input(Model),
        "training_data": Input(TrainingData),
        "teacher_logprobs": Input(TeacherLogProbs, many=True),
        "evaluation_data": Input(EvaluationData, optional=True, runtime=MONITORS),
        "stored_adapter": Input(Adapter, optional=True),
    },
    output=Model,
    body="tunemill.stages.training.distillation.body:distillation",
    kinds=("pytorch", "huggingface"),
    description="Knowledge distillation from a teacher's log-probabilities.",
    libraries=LIBRARIES,
    device="gpu",
    tracked=True,
    resumes_from=newest_complete,
)
