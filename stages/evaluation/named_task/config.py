"""What the `task_evaluation` stage reads of an entry of `pipeline.evaluations` with a `task`."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import Field, PositiveInt

from tunemill.stages.declaration import BehindMark, Entry, Fault, SourceMark, StageConfig, listed
from tunemill.stages.evaluation.harness.keys import HarnessConfig, HarnessSettings
from tunemill.stages.evaluation.harness.modules import versions_of
from tunemill.stages.evaluation.harness.task_files import files_behind, is_place


class TaskConfig(StageConfig):
    """Which task of lm-evaluation-harness an evaluation is, and how it is run."""

    entry_lists: ClassVar[tuple[str, ...]] = ()

    task: Annotated[Entry[str | list[str] | None], SourceMark(is_place=is_place)] = Field(
        None, description="names of tasks in lm_eval, and paths of your own, as in lm_eval_tasks"
    )
    task_files: Annotated[Entry[list[str] | None], BehindMark(of="task", find=files_behind)] = Field(
        None, description="what your own tasks include, and the data and functions that they name"
    )
    batch_size: Entry[PositiveInt | None] = Field(
        None, description="prompts per forward pass; rounding differs between sizes; unset: 8"
    )
    lm_eval: Entry[HarnessSettings] = Field(HarnessSettings(), description="how the task is run")

    @property
    def as_harness(self) -> HarnessConfig:
        """The same as keys of the whole pipeline have it."""
        size = {} if self.batch_size is None else {"lm_eval_batch_size": self.batch_size}
        return HarnessConfig(
            lm_eval_tasks=listed(self.task), task_files=self.task_files, lm_eval=self.lm_eval, **size
        )

    def semantic(self) -> dict[str, Any]:
        """With the versions of the code behind the tasks, as HarnessConfig."""
        return {**super().semantic(), **versions_of(listed(self.task))}

    def faults(self) -> Iterator[Fault]:
        """Those of the task."""
        yield from super().faults()
        for fault in self.as_harness.faults():
            yield Fault("task", fault.reason)
