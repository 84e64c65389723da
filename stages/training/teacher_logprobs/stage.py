"""The `teacher_logprobs` stage: what a teacher says of the rows that are trained on, once for all students."""

from tunemill.stages.artifacts import Model, TeacherLogProbs, Tokenizer, TrainingData
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.training.teacher_logprobs.config import TeacherLogprobsConfig

TEACHER_LOGPROBS = Stage(
    name="teacher_logprobs",
    version=1,
    config=TeacherLogprobsConfig,
    inputs={
        "tokenizer": Input(Tokenizer),
        "training_data": Input(TrainingData),
        "teacher_model": Input(Model, optional=True),
    },
    output=TeacherLogProbs,
    body="tunemill.stages.training.teacher_logprobs.body:teacher_logprobs",
    kinds=("pytorch", "arrow"),
    description="The teacher's likeliest tokens at each trained token, with their log-probabilities.",
    libraries=("transformers", "torch"),
    device="gpu",
)
