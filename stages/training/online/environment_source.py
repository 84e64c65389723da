"""What the source of an environment says of its rewards, read as text: no line of it runs."""

import ast
from collections.abc import Sequence

from tunemill.stages.own_bases import Ancestry, ancestry
from tunemill.stages.own_classes import readable_trees

# What an environment is asked by itself; other methods are tools.
RESET, REWARD = "reset", "get_reward"


def says_rewards(name: str, files: Sequence[str]) -> bool:
    """Whether an environment has a reward of its own.

    Of a class whose bases are all in these files they are asked; of a function that makes one, or what has bases
    elsewhere, whether any class of the files has one.
    """
    try:
        found = ancestry(name, files)
    except ValueError:
        # Said of the file itself.
        return False
    said = None if found is None else _says(found)
    return _any_says(files) if said is None else said


def _says(found: Ancestry) -> bool | None:
    """Whether these classes have a reward; None where that is not theirs alone."""
    bound = found.named(REWARD)
    if bound:
        nearest = bound[0][1]
        return not (isinstance(nearest, ast.Assign | ast.AnnAssign) and _is_none(nearest.value))
    if any(sets(one, REWARD) for _, one in found.classes):
        return True
    return False if found.is_whole and not found.named("__getattr__") else None


def _is_none(value: ast.expr | None) -> bool:
    return value is None or (isinstance(value, ast.Constant) and value.value is None)


def sets(tree: ast.AST, attribute: str) -> bool:
    """Whether something gets this attribute."""
    return any(
        isinstance(one, ast.Attribute) and one.attr == attribute and isinstance(one.ctx, ast.Store)
        for one in ast.walk(tree)
    )


def _any_says(files: Sequence[str]) -> bool:
    for _, tree in readable_trees(files):
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and any(
                isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and one.name == REWARD
                for one in node.body
            ):
                return True
    return False
