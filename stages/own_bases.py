"""A class of one's own with its bases, through all the files behind a YAML: read as text, no line of them runs."""

import ast
import builtins
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tunemill.stages.own_classes import SCOPES, dotted, file_of, may_bind, module_tree, outside_of_functions

# Bases that bring no method of their own.
EMPTY = {"object", "abc.ABC", "typing.Generic", "typing.Protocol"}


@dataclass
class Ancestry:
    """A class and its bases, the nearest first, each with its file.

    `is_whole`: there is nothing of it but these: no base that is elsewhere, no decorator, and no metaclass.
    """

    classes: list[tuple[Path, ast.ClassDef]] = field(default_factory=list)
    is_whole: bool = True

    def named(self, name: str) -> list[tuple[Path, ast.stmt]]:
        """What binds a name in them, the nearest first: the last of each body."""
        bound = (
            (file, [node for node in one.body if name in names_bound_by(node)]) for file, one in self.classes
        )
        return [(file, nodes[-1]) for file, nodes in bound if nodes]

    def names(self) -> list[str]:
        """Every name that they bind."""
        return list(
            dict.fromkeys(
                name for _, one in self.classes for node in one.body for name in names_bound_by(node)
            )
        )


def ancestry(name: str, files: Sequence[str]) -> Ancestry | None:
    """The class `module.Class` of these files; None where the name is no class, or may be something else as well.

    Raises ValueError where a file cannot be read.
    """
    found = Ancestry()
    start = _class_of(dotted(name), files)
    if start is None:
        return None
    found.classes.append(start)
    for file, one in found.classes:
        found.is_whole &= not one.decorator_list and not one.keywords
        for base in one.bases:
            named = _named_by(file, base)
            other = _class_of(named, files) if isinstance(named, str) else named
            if other is not None and not _is_in(other, found.classes):
                found.classes.append(other)
            found.is_whole &= other is not None or named in EMPTY
    return found


def sole(tree: ast.Module, name: str) -> ast.stmt | None:
    """The statement at the top of a module that binds a name, where it is the only one that may."""
    found = [node for node in tree.body if {name, "*"} & set(names_bound_by(node))]
    said_later = any(isinstance(one, ast.Global) and name in one.names for one in ast.walk(tree))
    return found[0] if len(found) == 1 and not said_later else None


def names_bound_by(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement binds where it stands."""
    if isinstance(statement, SCOPES):
        yield statement.name
        return
    if isinstance(statement, ast.AnnAssign) and statement.value is None:
        return
    for node in (statement, *outside_of_functions(statement)):
        if isinstance(node, SCOPES):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.alias):
            yield node.asname or node.name.partition(".")[0]


def _is_in(one: tuple[Path, ast.ClassDef], classes: Sequence[tuple[Path, ast.ClassDef]]) -> bool:
    return any((file, other.lineno) == (one[0], one[1].lineno) for file, other in classes)


def _class_of(name: str, files: Sequence[str]) -> tuple[Path, ast.ClassDef] | None:
    """The class of a dotted name, also where its module has it from another one of these files."""
    seen = set[str]()
    while name not in seen:
        seen.add(name)
        file = file_of(name, files)
        if file is None:
            return None
        tree = module_tree(file)
        found = sole(tree, name.rpartition(".")[2])
        if isinstance(found, ast.ClassDef):
            return file, found
        target = _imported(found, name.rpartition(".")[2])
        if target is None:
            return None
        name = target
    return None


def _named_by(file: Path, base: ast.expr) -> tuple[Path, ast.ClassDef] | str | None:
    """The base that stands in the same file, or its dotted name; None where neither can be told."""
    text = ast.unparse(base.value if isinstance(base, ast.Subscript) else base)
    if not all(part.isidentifier() for part in text.split(".")):
        return None
    head, dot, rest = text.partition(".")
    tree = module_tree(file)
    statement = sole(tree, head)
    if isinstance(statement, ast.ClassDef):
        return None if dot else (file, statement)
    if statement is None:
        return text if hasattr(builtins, head) and not may_bind(tree, head) else None
    target = _imported(statement, head)
    return None if target is None else f"{target}{dot}{rest}"


def _imported(statement: ast.stmt | None, name: str) -> str | None:
    """What a name stands for that is imported, as its module and its own name."""
    aliases = statement.names if isinstance(statement, ast.Import | ast.ImportFrom) else []
    alias = next((one for one in aliases if (one.asname or one.name.partition(".")[0]) == name), None)
    if alias is None:
        return None
    if isinstance(statement, ast.ImportFrom):
        return f"{statement.module}.{alias.name}" if statement.module else alias.name
    return alias.name if alias.asname else name
