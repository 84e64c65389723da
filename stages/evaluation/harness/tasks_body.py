"""Tasks of lm-evaluation-harness as it runs them: its own by name, and those of local YAMLs."""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from inspect import isfunction
from pathlib import Path
from typing import Any

from datasets import config as datasets_config
from datasets.exceptions import DatasetsError
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from jinja2 import TemplateError
from lm_eval.api.metrics import mean
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import TaskIndex

from tunemill.stages.data.conversations.user_modules import UserFailures
from tunemill.stages.errors import SourceError, UserError
from tunemill.stages.evaluation.harness.keys import HarnessSettings
from tunemill.stages.evaluation.harness.task_files import (
    BUILDERS,
    Function,
    LocalTask,
    is_place,
    local_tasks,
)

# What lm_eval and datasets raise for what a task says, or for data that are not there.
WRONG = (
    ValueError, TypeError, KeyError, AttributeError, NotImplementedError, AssertionError, OSError, DatasetsError,
    HfHubHTTPError, OfflineModeIsEnabled, ImportError, TemplateError,
)  # fmt: skip
KEY = "lm_eval_tasks"


@dataclass(frozen=True)
class Loaded:
    """Tasks and groups by name, as lm_eval evaluates them."""

    tasks: dict[str, Any]
    groups: dict[str, Any]


def load_tasks(names: Sequence[str], cache: Path) -> Loaded:
    """Every task that is asked for, each once, with its rows read. Tables of local data files are kept in `cache`.

    Raises SourceError, naming the task, where one cannot be had.
    """
    local = {name: local_tasks(Path(name)) for name in names if is_place(name)}
    own = {name: one for tasks in local.values() for task in tasks for name, one in all_of(task)}
    needs_package = len(local) < len(names) or any(one.members - own.keys() for one in own.values())
    # lm_eval's own tasks are more than ten thousand YAMLs, read for seconds.
    manager = TaskManager(include_defaults=needs_package)
    for task in own.values():
        manager.task_index[task.name] = _entry(task, cache)
    found = Loaded({}, {})
    for name in names:
        for asked in [task.name for task in local[name]] if name in local else [name]:
            try:
                more = manager.load([asked])
            except UserError:
                raise
            except WRONG as error:
                raise SourceError(f"{KEY}: {name} {_reason(error)}") from error
            twice = sorted(more["tasks"].keys() & found.tasks.keys())
            if twice:
                raise SourceError(
                    f"{KEY}: {name} has the task {twice[0]}, and so has another entry; take one of them out"
                )
            found.tasks.update(more["tasks"])
            found.groups.update(more.get("groups", {}))
    return found


def all_of(task: LocalTask) -> Iterator[tuple[str, LocalTask]]:
    """A task or group, and everything local in it, by name."""
    yield task.name, task
    for one in task.inner:
        yield from all_of(one)


def _entry(task: LocalTask, cache: Path) -> Any:
    """A local task as lm_eval's index has it."""
    entry = TaskIndex.entry_from_config(runnable(task.config, cache))
    assert entry is not None, "a local task has a name"
    return entry


def runnable(value: Any, cache: Path) -> Any:
    """A config with its functions in place of their names, and with a folder for the tables of local data files."""
    if isinstance(value, Function):
        return function_of(value)
    if isinstance(value, list):
        return [runnable(item, cache) for item in value]
    if not isinstance(value, dict):
        return value
    made = {key: runnable(item, cache) for key, item in value.items()}
    source = made.get("dataset_path")
    if isinstance(source, str) and (source in BUILDERS or Path(source).is_absolute()):
        # The shared cache goes by names and times of files.
        made["dataset_kwargs"] = {"cache_dir": str(cache), **(made.get("dataset_kwargs") or {})}
    return made


def function_of(named: Function) -> Callable[..., Any]:
    """What `!function` names, run from the file beside the YAML, or taken from an installed module.

    Raises SourceError where it does not load, or there is no such function.
    """
    module_name, _, name = named.name.rpartition(".")
    file = named.file
    try:
        module = import_module(module_name) if file is None else _module_of(file)
        found: Callable[..., Any] = getattr(module, name)
    except (*WRONG, SyntaxError, NameError, ArithmeticError, LookupError, RuntimeError) as error:
        where = file or module_name
        raise SourceError(
            f"{KEY}: !function {named.name}: {where}: {type(error).__name__}: {error}"
        ) from error
    return _told(found, named) if isfunction(found) else found


def _told(function: Callable[..., Any], named: Function) -> Callable[..., Any]:
    """The same function, but what it raises is told with its line."""

    @wraps(function)
    def call(*arguments: Any, **more: Any) -> Any:
        with UserFailures(f"{KEY}: !function {named.name}", [str(named.file)], UserError):
            return function(*arguments, **more)

    return call


def _module_of(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"lm_eval_task_{file.stem}", file)
    assert spec is not None and spec.loader is not None, "its name ends in .py"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _reason(error: BaseException) -> str:
    """Why a task cannot be run, in a sentence."""
    text = " ".join(str(error).split())
    is_remote = isinstance(error, OfflineModeIsEnabled | HfHubHTTPError | ConnectionError)
    if is_remote or (datasets_config.HF_HUB_OFFLINE and "offline" in text.lower()):
        offline = datasets_config.HF_HUB_OFFLINE
        mend = "HF_HUB_OFFLINE is set: unset it" if offline else "Connect to the Hub"
        return (
            f"reads data of the Hub, which cannot be reached ({text}). {mend}, or use a task with local data"
        )
    return f"cannot be loaded: {type(error).__name__}: {text}"


def set_up(tasks: Loaded, settings: HarnessSettings, seed: int) -> None:
    """Give the tasks what the pipeline's YAML says of all of them."""
    for task in tasks.tasks.values():
        if settings.generation and task.get_config("output_type") == "generate_until":
            task.set_config(key="generation_kwargs", value=dict(settings.generation), update=True)
        stated = task.get_config("num_fewshot")
        # A task that says 0 cannot have examples.
        if settings.num_fewshot is not None and stated != 0:
            task.set_config(key="num_fewshot", value=settings.num_fewshot)
        elif stated is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=seed)


def mean_metrics(task: Any) -> frozenset[str]:
    """The metrics of a task that are means over its rows; lm_eval takes the mean where nothing else is named."""
    named = task.aggregation()
    return frozenset(name for name in named if named[name] is mean)
