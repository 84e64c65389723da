"""A metric of one's own: a Python function beside the YAML."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from tunemill.stages.evaluation.answered import Answered
from tunemill.stages.evaluation.metrics.settings import MetricSettings
from tunemill.stages.own_classes import dotted, file_of, looked_for, module_tree

# What a function may ask for, by these names.
GIVEN = ("prediction", "reference", "prompt", "row", "tokens", "finish_reason")


class Function(MetricSettings):
    """A function in a file: `my_metrics.py:closeness`."""

    metric: Literal["function"]
    function: str = Field(min_length=3, description="`file.py:function`, or `module.function`")

    @property
    def label(self) -> str:
        """As the function is called."""
        return self.name or dotted(self.function).rpartition(".")[2]


def arguments(one: Answered, names: Sequence[str]) -> dict[str, str | int]:
    """What a function that takes these names is called with."""
    return {name: getattr(one, name) for name in GIVEN if name in names}


def fault_of_function(name: str, files: Sequence[str]) -> str | None:
    """Why what a name means beside the YAML is no such function; the source is read, and not run."""
    file = file_of(name, files)
    if file is None:
        return f"there is no {looked_for(name)} beside the YAML"
    return _fault_in(file, dotted(name).rpartition(".")[2])


def _fault_in(file: Path, function: str) -> str | None:
    import ast

    try:
        tree = module_tree(file)
    except ValueError as error:
        return str(error)
    found = next(
        (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function), None
    )
    if found is None:
        return f"{file} has no function {function}"
    plain = [*found.args.posonlyargs, *found.args.args]
    needed = [one.arg for one in plain[: len(plain) - len(found.args.defaults)]]
    needed += [
        one.arg
        for one, default in zip(found.args.kwonlyargs, found.args.kw_defaults, strict=True)
        if default is None
    ]
    unknown = [name for name in needed if name not in GIVEN]
    if unknown:
        return (
            f"{file}, line {found.lineno}: {function} takes {', '.join(unknown)}. What it may take is "
            f"{', '.join(GIVEN)}, each by its name"
        )
    return None
