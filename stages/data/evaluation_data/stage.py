"""The evaluation_data stage: rows that are never trained on."""

from tunemill.stages.artifacts import EvaluationData, TokenizedDataset, TrainingData
from tunemill.stages.data.evaluation_data.config import EvaluationDataConfig
from tunemill.stages.data.rows.checks import OF_HELD_OUT
from tunemill.stages.declaration import Input, Stage

EVALUATION_DATA = Stage(
    name="evaluation_data",
    version=4,
    config=EvaluationDataConfig,
    inputs={
        "tokenized": Input(TokenizedDataset, many=True, optional=True),
        "training_data": Input(TrainingData, optional=True),
    },
    output=EvaluationData,
    body="tunemill.stages.data.evaluation_data.body:evaluation_data",
    kinds=("arrow",),
    description="Rows of test_datasets, or the rows that val_set_size held out.",
    libraries=("numpy",),
    prepares_data=True,
    traces="tunemill.stages.data.evaluation_data.trace_body:trace",
    idle_without="there is nothing to evaluate on: neither test_datasets nor val_set_size",
    checks=OF_HELD_OUT,
)
