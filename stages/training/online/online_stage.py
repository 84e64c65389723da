"""The declaration of a method that learns from what the model itself samples."""

from dataclasses import replace

from tunemill.stages.artifacts import Model, PromptData
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.training.online.health import OF_ONLINE
from tunemill.stages.training.online.policy_keys import PolicyKeys
from tunemill.stages.training.training_stage import training_stage


def online_stage(body: str, config: type[PolicyKeys], description: str, version: int = 1) -> Stage:
    """The stage that has the name of its body, which is `module:function`."""
    models = {"reward_models": Input(Model, many=True, optional=True)}
    made = training_stage(
        body, config, description, version=version, data=PromptData, held_out=PromptData, beside=models
    )
    return replace(made, checks=OF_ONLINE)
