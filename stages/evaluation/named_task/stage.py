"""The `task_evaluation` stage: one model on the `task` of an entry of `pipeline.evaluations`."""

from tunemill.stages.artifacts import Adapter, HarnessReport, Model
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.evaluation.checks import OF_SCORES
from tunemill.stages.evaluation.named_task.config import TaskConfig

TASK_EVALUATION = Stage(
    name="task_evaluation",
    version=1,
    config=TaskConfig,
    inputs={"model": Input(Model), "adapter": Input(Adapter, optional=True)},
    output=HarnessReport,
    body="tunemill.stages.evaluation.named_task.body:evaluate",
    kinds=("pytorch",),
    description="The scores of lm-evaluation-harness on one task, or some.",
    libraries=("lm_eval", "transformers", "torch", "peft", "datasets"),
    device="gpu",
    checks=OF_SCORES,
)
