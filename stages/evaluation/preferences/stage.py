"""The `preference_evaluation` stage: what one model says of held-out answers, beside the base model."""

from tunemill.stages.artifacts import Adapter, Model, PreferenceData, PreferenceReport
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.evaluation.checks import OF_SCORES
from tunemill.stages.evaluation.preferences.config import PreferenceEvaluationConfig
from tunemill.stages.evaluation.settings import NOTHING_EVALUATED

PREFERENCE_EVALUATION = Stage(
    name="preference_evaluation",
    version=2,
    config=PreferenceEvaluationConfig,
    inputs={
        "model": Input(Model),
        "adapter": Input(Adapter, optional=True),
        "reference": Input(Model, optional=True),
        "evaluation_data": Input(PreferenceData),
    },
    output=PreferenceReport,
    body="tunemill.stages.evaluation.preferences.body:evaluate",
    kinds=("pytorch",),
    description="Accuracy, margins and divergence from the base model on held-out preferences.",
    libraries=("transformers", "torch", "peft"),
    device="gpu",
    idle_without=NOTHING_EVALUATED,
    checks=OF_SCORES,
)
