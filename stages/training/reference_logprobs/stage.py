"""The `reference_logprobs` stage: what the model says of the answers before it is trained, once for all trainings."""

from tunemill.stages.artifacts import Adapter, Model, PreferenceData, ReferenceLogProbs
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.training.method import LIBRARIES
from tunemill.stages.training.reference_logprobs.config import ReferenceConfig

REFERENCE_LOGPROBS = Stage(
    name="reference_logprobs",
    version=1,
    config=ReferenceConfig,
    inputs={
        "base_model": Input(Model),
        "preference_data": Input(PreferenceData),
        "stored_adapter": Input(Adapter, optional=True),
    },
    output=ReferenceLogProbs,
    body="tunemill.stages.training.reference_logprobs.body:reference_logprobs",
    kinds=("pytorch", "arrow"),
    description="Log probabilities of all answers under the model that training starts from.",
    libraries=LIBRARIES,
    device="gpu",
)
