"""What a local task of lm-evaluation-harness is made of: its YAML, what that includes, the data and functions it names.

Read as text: no function of a task runs here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tunemill.stages.errors import SourceError

ENDINGS = (".yaml", ".yml")
# What `dataset_path` may name beside a dataset: how the files of `data_files` are read.
BUILDERS = ("json", "csv", "parquet", "arrow", "text", "xml")
PATTERN = frozenset("*?[")


@dataclass(frozen=True)
class Function:
    """`!function module.name`, seen from the folder of the YAML in which it stands."""

    name: str
    folder: Path

    @property
    def file(self) -> Path | None:
        """The module's file beside the YAML; None where there is none, and it must be an installed module."""
        module = self.name.rpartition(".")[0]
        place = self.folder / f"{module.replace('.', '/')}.py"
        return place if module and place.is_file() else None


@dataclass(frozen=True)
class LocalTask:
    """A task, or a group of tasks, with everything that it includes, names of local data as absolute paths.

    `files` are those behind it: YAMLs, Python files, data files and folders of them. Of a group, those of its local
    members too, which are `inner`.
    """

    name: str
    config: dict[str, Any]
    files: tuple[Path, ...]
    inner: tuple["LocalTask", ...] = ()

    @property
    def items(self) -> list[Any]:
        """What stands in the list of a group; nothing of a task."""
        return list(self.config["task"]) if is_group(self.config) else []

    @property
    def members(self) -> frozenset[str]:
        """The names of a group's own tasks and groups."""
        return frozenset(name for item in self.items if (name := name_of(item)) is not None)


def is_place(name: str) -> bool:
    """Whether a name in `lm_eval_tasks` is the path of a task or of a folder of them, and none of lm_eval's own."""
    return name.lower().endswith(ENDINGS) or "/" in name or name.startswith((".", "~"))


def files_behind(names: Any, folder: Path) -> list[str] | None:
    """The files behind the local tasks in a name or a list of names, beside those named; None where there are none.

    What cannot be read is left out: the stage's config says what is wrong with it.
    """
    found: dict[str, None] = {}
    for name in names if isinstance(names, list) else [names]:
        if not isinstance(name, str) or not is_place(name):
            continue
        place = (folder / Path(name).expanduser()).resolve()
        try:
            tasks = local_tasks(place)
        except (SourceError, OSError):
            continue
        found |= {str(file): None for task in tasks for file in task.files if file != place}
    return list(found) or None


def local_tasks(place: Path) -> list[LocalTask]:
    """What a path asks for: the task or group of a YAML, or all of a folder, each once.

    Raises SourceError for a file that is no such YAML, and for a folder without any.
    """
    if not place.is_dir():
        siblings = {task.name: task for file in yamls(place.parent, deep=False) if (task := _one(file))}
        return [whole(_read(place), siblings)]
    read = {task.name: task for file in yamls(place, deep=True) if (task := _in_folder(file)) is not None}
    if not read:
        raise SourceError(
            f"{place}: no YAML in this folder names a task; write `task: NAME` into one of them"
        )
    inner = frozenset[str]().union(*(task.members for task in read.values()))
    return [whole(task, read) for name, task in read.items() if name not in inner]


def yamls(folder: Path, *, deep: bool) -> list[Path]:
    """The YAMLs in a folder, or below it, in a fixed order."""
    found = folder.rglob("*") if deep else folder.glob("*")
    kept = (
        file
        for file in found
        if file.suffix.lower() in ENDINGS
        and not any(part.startswith((".", "__pycache__")) for part in file.relative_to(folder).parts)
    )
    return sorted(kept, key=lambda file: file.as_posix())


def whole(task: LocalTask, others: Mapping[str, LocalTask], around: tuple[str, ...] = ()) -> LocalTask:
    """A group with its local members. Raises SourceError for one that holds itself."""
    if task.name in around:
        raise SourceError(f"the group {task.name} is a member of itself; take it out of {around[-1]}")
    named = (others.get(name_of(item) or "") for item in task.items)
    inner = tuple(whole(one, others, (*around, task.name)) for one in named if one is not None)
    files = dict.fromkeys([*task.files, *(file for one in inner for file in one.files)])
    return LocalTask(task.name, task.config, tuple(files), inner)


def is_group(config: Mapping[str, Any]) -> bool:
    """Whether a config is one of a group of tasks."""
    return "group" in config and isinstance(config.get("task"), list)


def name_of(item: Any) -> str | None:
    """The name in an item of a group's list."""
    found = (item.get("group") or item.get("task")) if isinstance(item, dict) else item
    return found if isinstance(found, str) else None


def functions_in(value: Any) -> Iterator[Function]:
    """Every `!function` in a config."""
    if isinstance(value, Function):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from functions_in(item)


def _one(file: Path) -> LocalTask | None:
    """The task of a YAML beside the one that is asked for, if it is any."""
    try:
        return _read(file)
    except (SourceError, OSError):
        return None


def _in_folder(file: Path) -> LocalTask | None:
    """The task of a YAML in a folder of tasks; None of one that others include. Raises SourceError."""
    config = _load(file, [], {})
    return _read(file) if "task" in config or "group" in config else None


def _read(place: Path) -> LocalTask:
    files: dict[Path, None] = {}
    config = _load(place, [], files)
    name = config.get("group") if is_group(config) else config.get("task")
    if not isinstance(name, str) or not name:
        raise SourceError(f"{place}: it names no task; write `task: NAME` into it")
    folders = list(dict.fromkeys([place.parent, *place.parent.parents, *(file.parent for file in files)]))
    config = _with_places(config, folders)
    modules = (function.file for function in functions_in(config))
    found = [*files, *(file for file in modules if file is not None), *_data_of(config)]
    return LocalTask(name, config, tuple(dict.fromkeys(found)))


def _load(place: Path, around: Sequence[Path], files: dict[Path, None]) -> dict[str, Any]:
    """A YAML with what it includes, which its own keys win over; `files` gets all of them."""
    if place in around:
        raise SourceError(f"{place}: it includes itself; take it out of `include` in {around[-1]}")
    files[place] = None
    try:
        config = yaml.load(place.read_bytes(), Loader=_loader(place.parent))  # noqa: S506  a safe loader
    except OSError as error:
        raise SourceError(f"{place}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SourceError(f"{place}: it is no YAML of a task: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict):
        raise SourceError(f"{place}: a task is a mapping of keys to values; write `task: NAME` into it")
    included: dict[str, Any] = {}
    named = config.pop("include", [])
    for name in named if isinstance(named, list) else [named]:
        more = _load((place.parent / Path(str(name)).expanduser()).resolve(), [*around, place], files)
        included |= {key: value for key, value in more.items() if key != "task_list"}
    return {**included, **config}


def _loader(folder: Path) -> type[yaml.SafeLoader]:
    class Loader(yaml.SafeLoader):
        """YAML with `!function`."""

    def function(loader: Loader, node: yaml.ScalarNode) -> Function:
        return Function(str(loader.construct_scalar(node)), folder)

    Loader.add_constructor("!function", function)
    return Loader


def _with_places(config: dict[str, Any], folders: Sequence[Path]) -> dict[str, Any]:
    """The config of a task with absolute paths for local data, seen from the first of the folders that has them."""
    named = config.get("dataset_path")
    if not isinstance(named, str):
        return config
    if named not in BUILDERS:
        # A name of the Hub has the form of a path, so only what is there, or can be nothing else, is one.
        is_local = named.startswith((".", "/", "~")) or (folders[0] / named).exists()
        return {**config, "dataset_path": _whole(named, folders)} if is_local else config
    given = config.get("dataset_kwargs")
    if not isinstance(given, dict):
        return config
    places = {key: _whole(given[key], folders) for key in ("data_files", "data_dir") if key in given}
    return {**config, "dataset_kwargs": {**given, **places}}


def _whole(named: Any, folders: Sequence[Path]) -> Any:
    if isinstance(named, dict):
        return {key: _whole(value, folders) for key, value in named.items()}
    if isinstance(named, list):
        return [_whole(value, folders) for value in named]
    if not isinstance(named, str) or "://" in named:
        return named
    plain = str(Path(named).expanduser()) if named.startswith("~") else named
    if Path(plain).is_absolute():
        return plain
    return str(next((folder for folder in folders if _is_there(folder, plain)), folders[0]) / plain)


def _is_there(folder: Path, name: str) -> bool:
    return any(folder.glob(name)) if PATTERN & set(name) else (folder / name).exists()


def _data_of(config: Mapping[str, Any]) -> Iterator[Path]:
    """The files and folders of a task's local data."""
    named = config.get("dataset_path")
    if isinstance(named, str) and named not in BUILDERS and Path(named).is_absolute():
        yield Path(named)
    given = config.get("dataset_kwargs")
    if named not in BUILDERS or not isinstance(given, dict):
        return
    folder = given.get("data_dir")
    for name in _names(given.get("data_files")):
        if "://" in name:
            continue
        place = Path(name)
        if PATTERN & set(name):
            yield from sorted(Path(place.anchor).glob(str(place.relative_to(place.anchor))))
        else:
            yield place
    if isinstance(folder, str) and "data_files" not in given and "://" not in folder:
        yield Path(folder)


def _names(given: Any) -> Iterator[str]:
    if isinstance(given, str):
        yield given
    elif isinstance(given, dict | list):
        for item in given.values() if isinstance(given, dict) else given:
            yield from _names(item)
