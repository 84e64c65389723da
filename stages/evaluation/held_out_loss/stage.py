"""The `held_out_loss` stage: loss and perplexity of one model, without an answer."""

from tunemill.stages.artifacts import Adapter, EvaluationData, EvaluationReport, Model
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.evaluation.checks import OF_SCORES
from tunemill.stages.evaluation.held_out_loss.config import HeldOutLossConfig

HELD_OUT_LOSS = Stage(
    name="held_out_loss",
    version=1,
    config=HeldOutLossConfig,
    inputs={
        "model": Input(Model),
        "adapter": Input(Adapter, optional=True),
        "evaluation_data": Input(EvaluationData),
    },
    output=EvaluationReport,
    body="tunemill.stages.evaluation.held_out_loss.body:held_out_loss",
    kinds=("pytorch",),
    description="Loss and perplexity on the rows of an entry of pipeline.evaluations.",
    libraries=("transformers", "torch", "peft"),
    device="gpu",
    idle_without="no model answers held-out rows here: that takes rows held out by test_datasets or val_set_size and "
    "no empty pipeline.evaluate, or an entry of pipeline.evaluations",
    checks=OF_SCORES,
)
