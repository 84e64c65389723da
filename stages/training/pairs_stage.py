"""The declaration of a method that learns from pairs of answers."""

from tunemill.stages.artifacts import PreferenceData, ReferenceLogProbs
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.training.keys.training import TrainingKeys
from tunemill.stages.training.method import MONITORS
from tunemill.stages.training.training_stage import NONE, training_stage

# What a method reads that compares the model with the one that training starts from.
REFERENCE = {
    "reference_logprobs": Input(ReferenceLogProbs, optional=True),
    "held_out_logprobs": Input(ReferenceLogProbs, optional=True, runtime=MONITORS),
}


def pairs_stage(
    body: str, config: type[TrainingKeys], description: str, version: int = 1, has_reference: bool = False
) -> Stage:
    """The stage that has the name of its body, which is `module:function`."""
    return training_stage(
        body,
        config,
        description,
        version=version,
        data=PreferenceData,
        held_out=PreferenceData,
        beside=REFERENCE if has_reference else NONE,
    )
