"""What the `teacher_logprobs` stage reads from the YAML."""

from typing import Annotated

from pydantic import Field, PositiveInt

from tunemill.stages.declaration import YamlMark
from tunemill.stages.models.teacher import TeacherKeys


class TeacherLogprobsConfig(TeacherKeys):
    """Which model teaches, and how much of what it says is kept."""

    teacher_top_k: Annotated[PositiveInt, YamlMark("pipeline.teacher_top_k")] = Field(
        64, description="distillation: the teacher's likeliest tokens that are kept for each trained token"
    )
