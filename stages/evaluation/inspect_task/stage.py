"""The `inspect_evaluation` stage: one model on a task of inspect-ai."""

from tunemill.stages.artifacts import Adapter, HarnessReport, Model
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.evaluation.inspect_task.config import InspectTaskConfig

INSPECT_EVALUATION = Stage(
    name="inspect_evaluation",
    version=1,
    config=InspectTaskConfig,
    inputs={"model": Input(Model), "adapter": Input(Adapter, optional=True)},
    output=HarnessReport,
    body="tunemill.stages.evaluation.inspect_task.body:evaluate",
    kinds=("pytorch",),
    description="The scores of inspect-ai on a task of your own.",
    libraries=("transformers", "torch", "peft"),
    device="gpu",
)
