"""The declaration of a method that learns from pairs of answers."""

from tunemill.stages.artifacts import Adapter, Model, PreferenceData, ReferenceLogProbs
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.training.checkpoints import newest_complete
from tunemill.stages.training.keys.training import TrainingKeys
from tunemill.stages.training.method import LIBRARIES, MONITORS

# What a method reads that compares the model with the one that training starts from.
REFERENCE = {
    "reference_logprobs": Input(ReferenceLogProbs, optional=True),
    "held_out_logprobs": Input(ReferenceLogProbs, optional=True, runtime=MONITORS),
}


def pairs_stage(
    body: str, config: type[TrainingKeys], description: str, version: int = 1, has_reference: bool = False
) -> Stage:
    """The stage that has the name of its body, which is `module:function`."""
    return Stage(
        name=body.partition(":")[2],
        version=version,
        config=config,
        inputs={
            "base_model": Input(Model),
            "training_data": Input(PreferenceData),
            "evaluation_data": Input(PreferenceData, optional=True, runtime=MONITORS),
            "stored_adapter": Input(Adapter, optional=True),
            **(REFERENCE if has_reference else {}),
        },
        output=Model,
        body=body,
        kinds=("pytorch", "huggingface"),
        description=description,
        libraries=LIBRARIES,
        device="gpu",
        tracked=True,
        resumes_from=newest_complete,
    )
