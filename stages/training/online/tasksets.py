"""Tasksets of verifiers among `trl.reward_funcs`: their names, and what is known of them without importing any."""

import ast
import importlib.util
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tunemill.stages.own_classes import readable_trees

# An installed taskset is named with this in front; one beside the YAML is a class of a file there.
SCHEME = "verifiers:"
PACKAGE = "verifiers"
INSTALL = "pip install 'tunemill[verifiers]'"
# What it was tried with.
TRIED = "0.4."
# The column of a row that holds all that a task says of itself, as JSON.
TASK = "task"


def is_taskset(name: str) -> bool:
    """Whether a reward is named as an installed taskset."""
    return name.startswith(SCHEME)


def taskset_id(name: str) -> str:
    """What verifiers calls it."""
    return name.removeprefix(SCHEME)


def module_of(name: str) -> str:
    """The module that verifiers imports for it: of `owner/my-tasks@1.0` it is `my_tasks`."""
    return taskset_id(name).rpartition("/")[2].partition("@")[0].replace("-", "_").lower()


def fault_of_package() -> str | None:
    """Why verifiers cannot be used here."""
    try:
        found = version(PACKAGE)
    except PackageNotFoundError:
        return f"needs verifiers, which is not installed. {INSTALL}"
    return (
        None if found.startswith(TRIED) else f"needs verifiers {TRIED}*, and {found} is installed. {INSTALL}"
    )


def fault_of_taskset(name: str) -> str | None:
    """Why an installed taskset cannot be used here; none of its lines runs."""
    if (reason := fault_of_package()) is not None:
        return f"{name}: {reason}"
    module = module_of(name)
    if not module.isidentifier():
        return f"{name}: no taskset can be called so. Write verifiers:my-taskset"
    if _of_verifiers(module) or importlib.util.find_spec(module) is not None:
        return None
    return (
        f"{name}: there is no module {module}. Install the taskset's package, or name a class beside the YAML"
    )


def _of_verifiers(module: str) -> bool:
    """Whether it comes with verifiers, which is not imported for that: it takes seconds."""
    spec = importlib.util.find_spec(PACKAGE)
    places = spec.submodule_search_locations if spec is not None else None
    return any((Path(place) / "v1" / "tasksets" / module).is_dir() for place in places or ())


def imports_verifiers(files: Sequence[str]) -> bool:
    """Whether one of these files imports it, and so may hold a taskset."""
    for _, tree in readable_trees(files):
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            if any(name.partition(".")[0] == PACKAGE for name in names):
                return True
    return False
