"""The `evaluation` stage: held-out loss and generated answers of one model."""

from tunemill.stages.artifacts import Adapter, EvaluationData, EvaluationReport, Model
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.evaluation.answers.config import EvaluationConfig
from tunemill.stages.evaluation.checks import OF_SCORES

EVALUATION = Stage(
    name="evaluation",
    version=4,
    config=EvaluationConfig,
    inputs={
        "model": Input(Model),
        "adapter": Input(Adapter, optional=True),
        "evaluation_data": Input(EvaluationData),
        "teacher_model": Input(Model, optional=True),
    },
    output=EvaluationReport,
    body="tunemill.stages.evaluation.answers.body:evaluate",
    kinds=("pytorch",),
    description="Held-out loss, perplexity and exact match of generated answers.",
    libraries=("transformers", "torch", "peft"),
    device="gpu",
    idle_without="no model answers held-out rows here: that takes one that learns to write answers, from rows or a "
    "teacher, rows held out by test_datasets or val_set_size, and no empty pipeline.evaluate",
    checks=OF_SCORES,
)
