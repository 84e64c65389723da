"""What the `inspect_evaluation` stage reads of an entry of `pipeline.evaluations` with a task of inspect-ai."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from tunemill.stages.declaration import BehindMark, Entry, Fault, RuntimeMark, StageConfig, YamlMark
from tunemill.stages.evaluation.inspect_keys import InspectSettings
from tunemill.stages.evaluation.inspect_task.task_files import files_behind, functions_of
from tunemill.stages.evaluation.judge_keys import CLIENT
from tunemill.stages.interpreters import version_beside, whole_path, why_without

PACKAGE, MODULE = "inspect-ai", "inspect_ai"
KEY = "pipeline.inspect_python"


class InspectTaskConfig(StageConfig):
    """Which task of inspect-ai an evaluation is, and how it is run."""

    entry_lists: ClassVar[tuple[str, ...]] = ()

    task: Entry[str] = Field(
        "", description="the path of a Python file with a task of inspect-ai, with @name where it has several"
    )
    task_files: Annotated[Entry[list[str] | None], BehindMark(of="task", find=files_behind)] = Field(
        None, description="the task's file, what it imports from beside it, and the files that these name"
    )
    inspect: Entry[InspectSettings] = Field(InspectSettings(), description="how the task is run")
    inspect_python: Annotated[str | None, YamlMark(KEY), RuntimeMark(), AfterValidator(whole_path)] = Field(
        None,
        description="the Python of the environment in which inspect-ai is installed, a whole path; unset: tunemill's "
        "own: where inspect-ai is, while keys have its version",
    )

    @property
    def file(self) -> Path:
        """The task's file."""
        return Path((self.task_files or [self.task.partition("@")[0]])[0])

    @property
    def function(self) -> str | None:
        """The function that makes the task, where one is named."""
        return self.task.partition("@")[2] or None

    def used_tools(self) -> Mapping[str, str]:
        """inspect-ai's version to the last digit: its scorers are a part of every score."""
        return {PACKAGE: version_beside(self.inspect_python, MODULE) or "not installed"}

    def faults(self) -> Iterator[Fault]:
        """inspect-ai that is not there, and a file that makes no such task."""
        yield from super().faults()
        if version_beside(self.inspect_python, MODULE) is None:
            yield Fault("task", f"needs {PACKAGE}, and {self._why_not_there()}")
        elif version_beside(self.inspect_python, CLIENT) is None:
            there = "tunemill" if self.inspect_python is None else self.inspect_python
            yield Fault(
                "task", f"{PACKAGE} asks by {CLIENT}, which is not installed beside {there}. Install it there"
            )
        if self.file.is_file() and (reason := _fault_of_task(self.file, self.function)):
            yield Fault("task", reason)

    def _why_not_there(self) -> str:
        if self.inspect_python is not None:
            return why_without(self.inspect_python, PACKAGE)
        return (
            "it is not installed beside tunemill. Give it an environment of its own (python -m venv inspect && "
            f"inspect/bin/pip install inspect-ai openai), and name its Python: {KEY}: /path/to/inspect/bin/python"
        )


def _fault_of_task(file: Path, function: str | None) -> str | None:
    try:
        found = functions_of(file)
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
        return f"{file}: Python cannot read it: {error}"
    if not found:
        return f"{file}: no function in it makes a task of inspect-ai (@task). Name the file that has one"
    if function is None and len(found) > 1:
        return f"{file}: has the tasks {', '.join(found)}. Say which: {file.name}@{found[0]}"
    if function is not None and function not in found:
        return f"{file}: has no task {function}, but {', '.join(found)}"
    return None
