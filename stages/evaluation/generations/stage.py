"""The `generations` stage: what one model answers to held-out rows."""

from tunemill.stages.artifacts import Adapter, EvaluationData, Generations, Model
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.evaluation.checks import OF_GENERATIONS
from tunemill.stages.evaluation.generations.config import GenerationsConfig

GENERATIONS = Stage(
    name="generations",
    version=1,
    config=GenerationsConfig,
    inputs={
        "model": Input(Model),
        "adapter": Input(Adapter, optional=True),
        "evaluation_data": Input(EvaluationData),
    },
    output=Generations,
    body="tunemill.stages.evaluation.generations.body:generate",
    kinds=("pytorch",),
    description="Answers of one model to held-out rows, kept so that any metric can be computed of them.",
    libraries=("transformers", "torch", "peft"),
    device="gpu",
    idle_without="no model answers held-out rows here: that takes rows held out by test_datasets or val_set_size and "
    "no empty pipeline.evaluate, or an entry of pipeline.evaluations",
    checks=OF_GENERATIONS,
)
