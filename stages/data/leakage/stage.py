"""The leakage stage: held-out rows that are trained on."""

from tunemill.stages.artifacts import EvaluationData, LeakageReport, Tokenizer, TrainingData
from tunemill.stages.data.rows.checks import OF_LEAKAGE
from tunemill.stages.declaration import Input, Stage, StageConfig

LEAKAGE = Stage(
    name="leakage",
    version=1,
    config=StageConfig,
    inputs={
        "training_data": Input(TrainingData),
        "evaluation_data": Input(EvaluationData),
        "tokenizer": Input(Tokenizer),
    },
    output=LeakageReport,
    body="tunemill.stages.data.leakage.body:leakage",
    description="Held-out rows that are trained on: as they are, with other line breaks, or inside of longer rows.",
    libraries=("numpy", "tokenizers"),
    prepares_data=True,
    accompanies=("training_data",),
    checks=OF_LEAKAGE,
)
