"""The columns that reward functions ask for by name, read from their text before anything is sampled."""

import ast
from collections.abc import Iterator, Sequence

from tunemill.stages.choices import nearest
from tunemill.stages.errors import SettingError
from tunemill.stages.own_classes import dotted, file_of, module_tree
from tunemill.stages.training.online.reward_calls import KEY

# What every function is given beside the columns of the rows.
GIVEN = frozenset({"prompts", "completions", "completion_ids", "trainer_state", "log_metric", "log_extra"})


def check_columns(rewards: Sequence[str], files: Sequence[str], columns: frozenset[str]) -> None:
    """Raise SettingError where a function must be given a column that no row has."""
    for name in rewards:
        file = file_of(name, files)
        if file is None:
            continue
        for parameter, line in needed(module_tree(file), dotted(name).rpartition(".")[2]):
            if parameter in columns:
                continue
            near = nearest(parameter, sorted(columns))
            meant = f" Did you mean {near[0]}?" if near else ""
            raise SettingError(
                f"{KEY}: {name} ({file}, line {line}) must be given {parameter!r}, and no row has such a column: they "
                f"have {', '.join(sorted(columns)) or 'none'}.{meant} Add it to the rows, or give the parameter a "
                f"default ({parameter}=None)"
            )


def needed(tree: ast.Module, name: str) -> Iterator[tuple[str, int]]:
    """The parameters without a default of a function at the top of a module, with their lines; none that is given.

    Nothing of a function that is decorated, or bound in another way: what it takes is known when it runs.
    """
    bound = [one for one in tree.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
    found = [one for one in bound if one.name == name]
    if len(found) != 1 or found[0].decorator_list:
        return
    taken = found[0].args
    by_place = [*taken.posonlyargs, *taken.args]
    without = by_place[: len(by_place) - len(taken.defaults)]
    without += [one for one, value in zip(taken.kwonlyargs, taken.kw_defaults, strict=True) if value is None]
    yield from ((one.arg, one.lineno) for one in without if one.arg not in GIVEN)
