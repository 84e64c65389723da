"""The `harness_evaluation` stage: one model on `lm_eval_tasks`."""

from tunemill.stages.artifacts import Adapter, HarnessReport, Model
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.evaluation.checks import OF_SCORES
from tunemill.stages.evaluation.harness.keys import HarnessConfig

HARNESS_EVALUATION = Stage(
    name="harness_evaluation",
    version=1,
    config=HarnessConfig,
    inputs={"model": Input(Model, optional=True), "adapter": Input(Adapter, optional=True)},
    output=HarnessReport,
    body="tunemill.stages.evaluation.lm_eval_tasks.body:evaluate",
    kinds=("pytorch",),
    description="The scores of lm-evaluation-harness on its tasks, or on your own.",
    libraries=("lm_eval", "transformers", "torch", "peft", "datasets"),
    device="gpu",
    idle_without="lm_eval_tasks names no task, or pipeline.evaluate is empty",
    checks=OF_SCORES,
)
