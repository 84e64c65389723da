"""What the `harness_evaluation` stage reads from the YAML."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from tunemill.stages.choices import nearest
from tunemill.stages.declaration import (
    BehindMark,
    ConflictError,
    Fault,
    ModelSource,
    Settings,
    SourceMark,
    StageConfig,
    YamlMark,
)
from tunemill.stages.errors import SourceError
from tunemill.stages.evaluation.harness.metric_names import OF_EVALUATE, registered, unknown_metrics
from tunemill.stages.evaluation.harness.modules import PACKAGE, installed_version, versions_of
from tunemill.stages.evaluation.harness.task_files import (
    Function,
    LocalTask,
    files_behind,
    functions_in,
    is_place,
    local_tasks,
)
from tunemill.stages.models.teacher import fault_of_teacher

# Older ones load tasks in another way.
OLDEST = (0, 4, 13)
INSTALL = "pip install 'tunemill[lm-eval]'"
# What these keys of a task's own generation_kwargs would contradict.
NO_SETTINGS = frozenset({"max_length", "stopping_criteria", "pad_token_id", "use_cache"})


class HarnessSettings(Settings):
    """`pipeline.lm_eval`: how tasks of lm-evaluation-harness are run, whatever the task says."""

    limit: PositiveInt | None = Field(None, description="look at the first rows of each task; unset: all")
    num_fewshot: NonNegativeInt | None = Field(
        None, description="solved examples before each question; unset: as the task says"
    )
    chat_template: bool = Field(
        False, description="put each prompt into the model's chat template, examples as earlier turns"
    )
    system_prompt: str | None = Field(None, description="a system message before each prompt")
    generation: dict[str, Any] = Field(
        {},
        description="settings of generated answers that win over the task's: max_gen_toks, temperature, ...",
    )
    seed: NonNegativeInt | None = Field(
        None, description="for everything that is drawn; unset: the seeds of lm_eval itself, 0 and 1234"
    )

    @field_validator("generation", mode="after")
    @classmethod
    def _of_answers(cls, value: dict[str, Any]) -> dict[str, Any]:
        if wrong := sorted(NO_SETTINGS & value.keys()):
            raise ValueError(
                f"{wrong[0]}: is set by lm_eval itself; max_gen_toks says how long an answer may be"
            )
        return value


class HarnessConfig(StageConfig):
    """Which tasks of lm-evaluation-harness a model is scored on, and how."""

    lm_eval_tasks: Annotated[list[str], SourceMark(is_place=is_place)] = Field(
        [],
        description="score models on tasks of lm-evaluation-harness: names of tasks in lm_eval, and paths of your own: "
        "a task's YAML, or a folder of them",
    )
    task_files: Annotated[list[str] | None, BehindMark(of="lm_eval_tasks", find=files_behind)] = Field(
        None, description="what your own tasks include, and the data and functions that they name"
    )
    lm_eval_batch_size: PositiveInt = Field(
        8, description="prompts per forward pass; rounding differs between sizes"
    )
    lm_eval_model: ModelSource[str | None] = Field(
        None,
        description="score this model in place of those that are trained here: its folder, owner/name of one on the "
        "Hub, or asset://<pipeline>/<node>",
    )
    lm_eval: Annotated[HarnessSettings, YamlMark("pipeline.lm_eval")] = Field(
        HarnessSettings(), description="how the tasks are run"
    )

    @field_validator("lm_eval_tasks", mode="after")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if twice := [name for place, name in enumerate(value) if name in value[:place]]:
            raise ValueError(f"names {twice[0]} twice")
        if "" in value:
            raise ValueError("an empty name is none of a task; take it out")
        return value

    @model_validator(mode="after")
    def _settings_are_of_something(self) -> Self:
        system = self.lm_eval.system_prompt
        if system is not None and not system.strip():
            raise ConflictError("system_prompt is empty; write one, or take it out", "lm_eval")
        return self

    @property
    def own_tasks(self) -> list[str]:
        """The paths among the names of tasks."""
        return [name for name in self.lm_eval_tasks if is_place(name)]

    def semantic(self) -> dict[str, Any]:
        """With the versions of the code behind the tasks."""
        return {**super().semantic(), **versions_of(self.lm_eval_tasks)}

    def faults(self) -> Iterator[Fault]:
        """lm_eval that is not there, names that it does not have, and YAMLs that are none of tasks."""
        yield from super().faults()
        if reason := fault_of_package():
            yield Fault("lm_eval_tasks", reason)
        elif unknown := [
            name for name in self.lm_eval_tasks if not is_place(name) and not is_in_package(name)
        ]:
            yield Fault(
                "lm_eval_tasks",
                f"{unknown[0]}: lm_eval {installed_version()} has no task of this name, nor a group or tag; `lm-eval "
                f"ls tasks` lists them. Your own task is named by the path of its YAML",
            )
        for name in self.own_tasks:
            if reason := fault_of_place(Path(name)):
                yield Fault("lm_eval_tasks", reason)
        given = Path(self.lm_eval_model or "")
        if self.lm_eval_model and given.exists() and (reason := fault_of_teacher(given)):
            yield Fault("lm_eval_model", reason.replace("a teacher is", "tasks are for"))


def fault_of_package() -> str | None:
    """Why lm_eval cannot be used here."""
    found = installed_version()
    if found is None or importlib.util.find_spec(PACKAGE) is None:
        return f"needs lm-evaluation-harness (lm_eval), which is not installed. {INSTALL}"
    numbers = tuple(int(part) for part in re.findall(r"\d+", found)[:3])
    oldest = ".".join(map(str, OLDEST))
    return (
        None if numbers >= OLDEST else f"needs lm_eval {oldest} or later, and {found} is installed. {INSTALL}"
    )


def is_in_package(name: str) -> bool:
    """Whether some YAML of lm_eval has this word: of a task, a group or a tag. Most names are those of files."""
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None and spec.origin is not None, "asked only where it is installed"
    tasks = Path(spec.origin).parent / "tasks"
    if (tasks / name).is_dir() or any(tasks.glob(f"*/{name}.yaml")):
        return True
    word = re.compile(rb"(?<![\w-])" + re.escape(name.encode()) + rb"(?![\w-])")
    return any(word.search(file.read_bytes()) for file in tasks.rglob("*.yaml"))


def fault_of_place(place: Path) -> str | None:
    """Why a file or folder that is there holds no tasks: its YAMLs are wrong, or functions in them are not there."""
    if not place.exists():
        return None
    try:
        tasks = local_tasks(place)
    except (SourceError, OSError) as error:
        return str(error)
    if unknown := next((name for task in tasks for name in _unknown(task)), None):
        near = nearest(unknown, sorted(registered() | OF_EVALUATE))
        hint = f"; did you mean {near[0]}?" if near else ""
        known = f"lm_eval {installed_version()} nor the package evaluate"
        return f"{place}: metric_list: neither {known} has a metric {unknown}{hint}"
    missing = next((one for task in tasks for one in functions_in(task.config) if not _is_there(one)), None)
    if missing is None:
        return None
    module = missing.name.rpartition(".")[0]
    if not module:
        return f"{place}: !function {missing.name}: write module.function, the module being a file beside the YAML"
    where = f"there is no {module}.py in {missing.folder}"
    return f"{place}: !function {missing.name}: {where}, nor is such a module installed"


def _unknown(task: LocalTask) -> Iterator[str]:
    for one in (task, *task.inner):
        yield from unknown_metrics(one)


def _is_there(function: Function) -> bool:
    if function.file is not None:
        return True
    package = function.name.partition(".")[0]
    return "." in function.name and importlib.util.find_spec(package) is not None
