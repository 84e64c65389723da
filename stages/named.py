"""Stages by their names, each imported when it is asked for: a pipeline has one method of training out of many.

What is needed of all of them (their keys, for a key that no stage of a pipeline reads) is in the registry.
"""

from importlib import import_module

from tunemill.stages.declaration import Stage
from tunemill.stages.evaluation.answers.stage import EVALUATION
from tunemill.stages.evaluation.preferences.stage import PREFERENCE_EVALUATION
from tunemill.stages.evaluation.rewards.stage import REWARD_EVALUATION
from tunemill.stages.evaluation.steps.stage import STEP_EVALUATION

# What scores the models of a method on held-out rows; those of another method are not evaluated.
EVALUATIONS: dict[str, Stage] = {
    "sft": EVALUATION,
    "orpo": PREFERENCE_EVALUATION,
    "dpo": PREFERENCE_EVALUATION,
    "ipo": PREFERENCE_EVALUATION,
    "kto": PREFERENCE_EVALUATION,
    "simpo": PREFERENCE_EVALUATION,
    "process_reward": STEP_EVALUATION,
    "reward": REWARD_EVALUATION,
    "distillation": EVALUATION,
}


def method(name: str) -> Stage:
    """The method of training of this name: of `dpo` it is `DPO` in `stages/training/dpo/stage.py`.

    Raises ModuleNotFoundError where there is none.
    """
    module = import_module(f"tunemill.stages.training.{name}.stage")
    found: Stage = getattr(module, name.upper())
    return found


def stage_named(name: str) -> Stage | None:
    """The stage of this name, of all that there are; None for one that this version does not have."""
    from tunemill.stages.registry import STAGES

    return next((stage for stage in STAGES if stage.name == name), None)


def is_method(name: str) -> bool:
    """Whether a stage of this name trains."""
    from tunemill.stages.registry import METHODS

    return name in METHODS
