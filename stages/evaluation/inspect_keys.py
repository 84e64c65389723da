"""The keys of an evaluation that is a task of inspect-ai: of an entry of `pipeline.evaluations`."""

from typing import Any

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from tunemill.stages.declaration import Settings

ENDING = ".py"


def is_inspect(task: object) -> bool:
    """Whether a task is one of inspect-ai: the path of a Python file, with `@name` behind it where it has several."""
    return isinstance(task, str) and task.partition("@")[0].endswith(ENDING)


class InspectSettings(Settings):
    """`inspect`: how a task of inspect-ai is run, whatever the task says."""

    limit: PositiveInt | None = Field(None, description="look at the first samples; unset: all")
    args: dict[str, Any] = Field({}, description="arguments of the function that makes the task")
    max_tokens: PositiveInt | None = Field(
        None, description="longest answer in tokens; unset: as the task says, or else 512"
    )
    temperature: NonNegativeFloat | None = Field(
        None, description="0: the likeliest token each time; unset: as the task says, or else 0"
    )
    top_p: float | None = Field(
        None, gt=0, le=1, description="of the likeliest tokens that have this probability together"
    )
    seed: NonNegativeInt = Field(0, description="for answers that are drawn")
    system_message: str | None = Field(
        None, min_length=1, description="in place of the task's own system message"
    )
