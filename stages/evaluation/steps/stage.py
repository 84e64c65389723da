"""The `step_evaluation` stage: what a process reward model says of held-out steps."""

from tunemill.stages.artifacts import Adapter, EvaluationData, Model, StepReport
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.evaluation.checks import OF_SCORES
from tunemill.stages.evaluation.settings import NOTHING_EVALUATED
from tunemill.stages.evaluation.steps.config import StepEvaluationConfig

STEP_EVALUATION = Stage(
    name="step_evaluation",
    version=2,
    config=StepEvaluationConfig,
    inputs={
        "model": Input(Model),
        "adapter": Input(Adapter, optional=True),
        "evaluation_data": Input(EvaluationData),
    },
    output=StepReport,
    body="tunemill.stages.evaluation.steps.body:evaluate",
    kinds=("pytorch",),
    description="Held-out loss, step accuracy and F1 of the first wrong step.",
    libraries=("transformers", "torch", "peft"),
    device="gpu",
    idle_without=NOTHING_EVALUATED,
    checks=OF_SCORES,
)
