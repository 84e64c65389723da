"""The stages that score one model on tasks of lm-evaluation-harness: of `lm_eval_tasks`, and of one `task`."""

from dataclasses import replace

from tunemill.stages.artifacts import Adapter, HarnessReport, Model
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.evaluation.harness.config import HarnessConfig
from tunemill.stages.evaluation.harness.task_config import TaskConfig

HARNESS_EVALUATION = Stage(
    name="harness_evaluation",
    version=1,
    config=HarnessConfig,
    inputs={"model": Input(Model, optional=True), "adapter": Input(Adapter, optional=True)},
    output=HarnessReport,
    body="tunemill.stages.evaluation.harness.body:evaluate",
    kinds=("pytorch",),
    description="The scores of lm-evaluation-harness on its tasks, or on your own.",
    libraries=("lm_eval", "transformers", "torch", "peft", "datasets"),
    device="gpu",
    idle_without="lm_eval_tasks names no task, or pipeline.evaluate is empty",
)

TASK_EVALUATION = replace(
    HARNESS_EVALUATION,
    name="task_evaluation",
    config=TaskConfig,
    body="tunemill.stages.evaluation.harness.body:evaluate_task",
    idle_without=None,
)
