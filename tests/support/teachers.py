"""Teachers and what they say, for tests of distillation."""

from pathlib import Path
from typing import Any

from support.tiny_model import Heard, make_model, workspace
from tunemill.stages.artifacts import TeacherLogProbs, Tokenizer, TrainingData
from tunemill.stages.training.teacher_logprobs.body import teacher_logprobs
from tunemill.stages.training.teacher_logprobs.config import TeacherLogprobsConfig


def make_teacher(folder: Path, **changes: Any) -> Path:
    """A tiny model, another one than `make_model` makes by default."""
    return make_model(folder, **{"seed": 7, **changes})


def taught(
    folder: Path, teacher: Path, data: TrainingData, top_k: int = 8, heard: Heard | None = None
) -> TeacherLogProbs:
    """What a teacher says of training data, in `folder`."""
    out = workspace(folder)
    config = TeacherLogprobsConfig(teacher=str(teacher), teacher_top_k=top_k)
    teacher_logprobs(config, Tokenizer(teacher), data, out, (heard or Heard()).report)
    return TeacherLogProbs(out.data)
