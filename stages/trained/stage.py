"""The `trained` stage: supervised fine-tuning of all parameters, or of an adapter."""

from dataclasses import replace

from tunemill.stages.artifacts import Adapter, EvaluationData, Model, TrainingData
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.trained.config import TrainedConfig

TRAINED = Stage(
    name="trained",
    version=2,
    config=TrainedConfig,
    inputs={
        "base_model": Input(Model),
        "training_data": Input(TrainingData),
        "evaluation_data": Input(
            EvaluationData,
            optional=True,
            runtime="monitors training with its own random state: never changes the weights",
        ),
    },
    output=Model,
    body="tunemill.stages.trained.body:train",
    kinds=("pytorch", "huggingface"),
    description="Supervised fine-tuning with the Hugging Face Trainer.",
    libraries=("transformers", "torch", "peft", "accelerate"),
    device="gpu",
)

TRAINED_ADAPTER = replace(TRAINED, output=Adapter)
