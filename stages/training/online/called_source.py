"""Why what a completion calls, or what samples one, cannot be called as it is: read as text, no line of it runs.

Only what surely fails is told. What is decorated, bound twice, or has bases elsewhere is known when it runs.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from inspect import Parameter, Signature
from pathlib import Path

from tunemill.stages.own_bases import Ancestry, ancestry, sole
from tunemill.stages.own_classes import dotted, file_of, misfit, module_tree, signature_of
from tunemill.stages.training.online.environment_source import RESET, REWARD, sets

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
Function = ast.FunctionDef | ast.AsyncFunctionDef
# How a function that samples by itself is called.
SAMPLES = Signature([Parameter(name, Parameter.POSITIONAL_ONLY) for name in ("prompts", "trainer")])
DESCRIBED = "A completion is told of it by its docstring and its types"


def fault_of_source(key: str, name: str, files: Sequence[str]) -> str | None:
    """Of what one key names, in files that can be read."""
    file, wanted = file_of(name, files), dotted(name).rpartition(".")[2]
    assert file is not None, "checked"
    tree = module_tree(file)
    node = sole(tree, wanted)
    if isinstance(node, FUNCTIONS):
        return _fault_of_function(key, file, tree, node)
    if key != "environment_factory" or not isinstance(node, ast.ClassDef):
        return None
    found = ancestry(name, files)
    return None if found is None or not found.is_whole else _fault_of_class(wanted, found)


def _fault_of_function(key: str, file: Path, tree: ast.Module, node: Function) -> str | None:
    where, signature = f"{file}, line {node.lineno}: {node.name}", signature_of(node)
    if key == "tools":
        return None if sets(tree, "__doc__") else next(_undescribed([(file, node)], _taken(node)), None)
    if signature is None:
        return None
    if key == "environment_factory":
        needed = _needed(signature)
        return f"{where} {_must_be_given(needed)}" if needed else None
    if isinstance(node, ast.AsyncFunctionDef):
        return f"{where} is async, and nothing waits for what samples. Write def"
    reason = misfit(signature, SAMPLES)
    return None if reason is None else f"{where}{reason}"


def _needed(signature: Signature) -> list[str]:
    """What must be given."""
    stars = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return [
        one.name
        for one in signature.parameters.values()
        if one.default is Parameter.empty and one.kind not in stars
    ]


def _must_be_given(needed: Sequence[str]) -> str:
    return (
        f"must be given {', '.join(needed)}, and is called without anything for each completion. Give it a default, or "
        f"let {RESET} take it: it is given the columns of the row"
    )


def _fault_of_class(name: str, found: Ancestry) -> str | None:
    if not found.named(RESET) and not found.named("__getattr__"):
        return f"{found.classes[0][0]}: {name} has no method {RESET}, with which every completion begins"
    return _fault_of_making(name, found) or _fault_of_methods(found)


def _fault_of_making(name: str, found: Ancestry) -> str | None:
    """Why the class cannot be made without being given anything."""
    bound = found.named("__init__")
    if not bound or found.named("__new__") or not isinstance(bound[0][1], ast.FunctionDef):
        return None
    file, node = bound[0]
    assert isinstance(node, ast.FunctionDef)
    signature = signature_of(node)
    needed = _needed(signature)[1:] if signature else []
    return f"{file}, line {node.lineno}: {name} {_must_be_given(needed)}" if needed else None


def _fault_of_methods(found: Ancestry) -> str | None:
    if any(sets(module_tree(file), "__doc__") for file, _ in found.classes):
        return None
    for name in found.names():
        bound = found.named(name)
        definitions = [(file, node) for file, node in bound if isinstance(node, FUNCTIONS)]
        if name.startswith("_") or name in (RESET, REWARD) or len(definitions) < len(bound):
            continue
        reason = next(_undescribed(definitions, _taken(definitions[0][1])[1:]), None)
        if reason is not None:
            return reason
    return None


def _taken(node: Function) -> list[ast.arg]:
    """What a function takes, in the order in which it is written."""
    given = node.args
    stars = [[one] if one else [] for one in (given.vararg, given.kwarg)]
    return [*given.posonlyargs, *given.args, *stars[0], *given.kwonlyargs, *stars[1]]


def _undescribed(definitions: Sequence[tuple[Path, Function]], taken: Sequence[ast.arg]) -> Iterator[str]:
    """What transformers' `get_json_schema` refuses of a function; what it overrides may have its docstring."""
    file, node = definitions[0]
    if any(one.decorator_list for _, one in definitions):
        return
    docs = [doc for _, one in definitions if (doc := ast.get_docstring(one))]
    where = f"{file}, line {node.lineno}: {node.name}"
    if not docs:
        yield f"{where} has no docstring. {DESCRIBED}: write one"
    for place, one in enumerate(taken):
        # The name of what a method belongs to is not told.
        if one.annotation is None and place == 0 and one.arg in ("self", "cls"):
            continue
        if one.annotation is None:
            yield f"{where}: {one.arg} has no type. {DESCRIBED}: write {one.arg}: int, or what it is"
        elif not any(_describes(doc, one.arg) for doc in docs):
            yield (
                f"{where}: the docstring has no line for {one.arg}. {DESCRIBED}: write 'Args:' in a line of its own, "
                f"and '{one.arg}: what it is' below it"
            )


def _describes(doc: str, name: str) -> bool:
    """Whether a docstring may have a line for an argument below `Args:`."""
    return re.search(rf"\n\s*Args:\n(?:.*\n)*?\s*{re.escape(name)}:", doc) is not None
