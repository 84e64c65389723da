"""The prompt_data stage: the prompts that a model learns from by answering, in order."""

from tunemill.stages.artifacts import PromptData, Prompts
from tunemill.stages.data.prompt_data.config import PromptDataConfig
from tunemill.stages.data.rows.checks import OF_PROMPTS
from tunemill.stages.declaration import Input, Stage

PROMPT_DATA = Stage(
    name="prompt_data",
    version=1,
    config=PromptDataConfig,
    inputs={"tokenized": Input(Prompts, many=True)},
    output=PromptData,
    body="tunemill.stages.data.prompt_data.body:prompt_data",
    kinds=("arrow",),
    description="All prompts that fit, merged, shuffled and split.",
    libraries=("numpy",),
    prepares_data=True,
    checks=OF_PROMPTS,
    traces="tunemill.stages.data.prompt_data.trace_body:trace",
)
