"""The training_data stage: what the trainer reads, in order."""

from tunemill.stages.artifacts import TokenizedDataset, TrainingData
from tunemill.stages.data.rows.checks import OF_TRAINING
from tunemill.stages.data.training_data.config import TrainingDataConfig
from tunemill.stages.declaration import Input, Stage

TRAINING_DATA = Stage(
    name="training_data",
    version=5,
    config=TrainingDataConfig,
    inputs={"tokenized": Input(TokenizedDataset, many=True)},
    output=TrainingData,
    body="tunemill.stages.data.training_data.body:training_data",
    kinds=("arrow",),
    description="All datasets merged, shuffled, fitted to the sequence length, split and packed.",
    libraries=("numpy",),
    prepares_data=True,
    traces="tunemill.stages.data.training_data.trace_body:trace",
    export="tunemill.stages.data.rows.export_body:export_batch",
    checks=OF_TRAINING,
)
