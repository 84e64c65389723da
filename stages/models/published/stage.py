"""The `published` stage: a model's folder as it is given away."""

from tunemill.stages.artifacts import Artifact, EvaluationReport, LeakageReport, PublishedModel
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.models.published.config import PublishedConfig

PUBLISHED = Stage(
    name="published",
    version=2,
    config=PublishedConfig,
    inputs={
        "model": Input(Artifact),
        "evaluations": Input(EvaluationReport, many=True, optional=True),
        "training": Input(Artifact),
        "leakage": Input(LeakageReport, many=True, optional=True),
    },
    output=PublishedModel,
    body="tunemill.stages.models.published.body:publish",
    kinds=("huggingface",),
    description="The model with its card, its bill of materials and its signature, as it is given away.",
    idle_without="nothing is published; give pipeline: {publish: {to: PLACE}}, or hub_model_id",
)
