"""The `sft` stage: supervised fine-tuning of all parameters, or of an adapter."""

from tunemill.stages.artifacts import Adapter, EvaluationData, Model, TrainingData
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.training.checkpoints import newest_complete
from tunemill.stages.training.method import LIBRARIES, MONITORS
from tunemill.stages.training.sft.config import SftConfig

SFT = Stage(
    name="sft",
    version=5,
    config=SftConfig,
    inputs={
        "base_model": Input(Model),
        "training_data": Input(TrainingData),
        "evaluation_data": Input(EvaluationData, optional=True, runtime=MONITORS),
        "stored_adapter": Input(Adapter, optional=True),
    },
    output=Model,
    body="tunemill.stages.training.sft.body:sft",
    kinds=("pytorch", "huggingface"),
    description="Supervised fine-tuning with the Hugging Face Trainer.",
    libraries=LIBRARIES,
    device="gpu",
    tracked=True,
    resumes_from=newest_complete,
)
