"""The declaration of a method that learns from pairs of answers."""

from tunemill.stages.artifacts import Model, PreferenceData
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.training.keys.pairs import PairKeys
from tunemill.stages.training.method import LIBRARIES, MONITORS


def pairs_stage(name: str, config: type[PairKeys], description: str, version: int = 1) -> Stage:
    """The stage `name`, whose body is the function of that name in `stages/training/<name>/body.py`."""
    return Stage(
        name=name,
        version=version,
        config=config,
        inputs={
            "base_model": Input(Model),
            "training_data": Input(PreferenceData),
            "evaluation_data": Input(PreferenceData, optional=True, runtime=MONITORS),
        },
        output=Model,
        body=f"tunemill.stages.training.{name}.body:{name}",
        kinds=("pytorch", "huggingface"),
        description=description,
        libraries=LIBRARIES,
        device="gpu",
    )
