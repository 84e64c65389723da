"""The `orpo` stage: learning from pairs of answers without a reference model."""

from tunemill.stages.artifacts import Model, PreferenceData
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.training.method import LIBRARIES, MONITORS
from tunemill.stages.training.orpo.config import OrpoConfig

ORPO = Stage(
    name="orpo",
    version=1,
    config=OrpoConfig,
    inputs={
        "base_model": Input(Model),
        "training_data": Input(PreferenceData),
        "evaluation_data": Input(PreferenceData, optional=True, runtime=MONITORS),
    },
    output=Model,
    body="tunemill.stages.training.orpo.body:orpo",
    kinds=("pytorch", "huggingface"),
    description="Odds ratio preference optimization: the chosen answer likelier, the rejected one less likely.",
    libraries=LIBRARIES,
    device="gpu",
)
