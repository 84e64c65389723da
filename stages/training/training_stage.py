"""The declaration of a method of training: what all of them have in common."""

from collections.abc import Mapping
from types import MappingProxyType

from tunemill.stages.artifacts import Adapter, Artifact, EvaluationData, Model, TrainingData
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.training.checkpoints import newest_complete
from tunemill.stages.training.checks import OF_TRAINED
from tunemill.stages.training.keys.training import TrainingKeys
from tunemill.stages.training.method import LIBRARIES, MONITORS

NONE: Mapping[str, Input] = MappingProxyType({})


def training_stage(
    body: str,
    config: type[TrainingKeys],
    description: str,
    *,
    version: int = 1,
    data: type[Artifact] = TrainingData,
    held_out: type[Artifact] = EvaluationData,
    beside: Mapping[str, Input] = NONE,
) -> Stage:
    """The stage that has the name of its body, which is `module:function`. `beside`: what it reads besides rows."""
    return Stage(
        name=body.partition(":")[2],
        version=version,
        config=config,
        inputs={
            "base_model": Input(Model),
            "training_data": Input(data),
            "evaluation_data": Input(held_out, optional=True, runtime=MONITORS),
            "stored_adapter": Input(Adapter, optional=True),
            **beside,
        },
        output=Model,
        body=body,
        kinds=("pytorch", "huggingface"),
        description=description,
        libraries=LIBRARIES,
        device="gpu",
        tracked=True,
        resumes_from=newest_complete,
        checks=OF_TRAINED,
    )
