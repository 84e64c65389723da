"""The `process_reward` stage: a model that judges each step of an answer."""

from tunemill.stages.artifacts import Adapter, EvaluationData, Model, TrainingData
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.training.checkpoints import newest_complete
from tunemill.stages.training.method import LIBRARIES, MONITORS
from tunemill.stages.training.process_reward.config import ProcessRewardConfig

PROCESS_REWARD = Stage(
    name="process_reward",
    version=1,
    config=ProcessRewardConfig,
    inputs={
        "base_model": Input(Model),
        "training_data": Input(TrainingData),
        "evaluation_data": Input(EvaluationData, optional=True, runtime=MONITORS),
        "stored_adapter": Input(Adapter, optional=True),
    },
    output=Model,
    body="tunemill.stages.training.process_reward.body:process_reward",
    kinds=("pytorch", "huggingface"),
    description="A process reward model: which steps of an answer are right.",
    libraries=LIBRARIES,
    device="gpu",
    tracked=True,
    resumes_from=newest_complete,
)
