"""What a task of inspect-ai is made of: its Python file, those that it imports, the files that they name as they stand.

Read as text: no function of a task runs here.
"""

import ast
from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any


def place_of(task: str, folder: Path) -> Path:
    """The whole path of a task's file, seen from a folder."""
    return folder / Path(task.partition("@")[0]).expanduser()


def files_behind(task: Any, folder: Path) -> list[str] | None:
    """Whole paths of everything that is known to count, the task's own file first; None of what is no text."""
    if not isinstance(task, str):
        return None
    place = place_of(task, folder)
    modules = _modules(place)
    named = [path for module in modules for path in _named_in(module, place.parent)]
    return [str(path) for path in dict.fromkeys([place, *sorted({*modules, *named} - {place})])]


def functions_of(place: Path) -> list[str]:
    """The names of the functions of a file that make tasks. Raises SyntaxError, OSError."""
    found = ast.walk(_tree(place, place.stat().st_mtime_ns))
    functions = [node for node in found if isinstance(node, ast.FunctionDef)]
    return [node.name for node in functions if any(map(_is_task, node.decorator_list))]


def _is_task(decorator: ast.expr) -> bool:
    plain = decorator.func if isinstance(decorator, ast.Call) else decorator
    return (plain.attr if isinstance(plain, ast.Attribute) else getattr(plain, "id", None)) == "task"


@cache
def _tree(place: Path, _changed: int) -> ast.Module:
    return ast.parse(place.read_bytes())


def _tree_of(place: Path) -> ast.Module | None:
    """What Python reads in a file; None where it reads nothing, which is told elsewhere."""
    try:
        return _tree(place, place.stat().st_mtime_ns)
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None


def _modules(place: Path) -> set[Path]:
    """The file, and the files beside it that it imports, and those that these import."""
    found: set[Path] = set()
    pending = [place]
    while pending:
        file = pending.pop()
        tree = _tree_of(file)
        if file in found or tree is None:
            continue
        found.add(file)
        pending += [one for name in _imported(tree) for one in _beside(name, place.parent)]
    return found


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (item.name for item in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield from (f"{module}.{item.name}".strip(".") for item in node.names)


def _beside(name: str, folder: Path) -> Iterator[Path]:
    """The files that the import of a dotted name may read in a folder."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        inner = folder.joinpath(*parts[:end])
        yield from (one for one in (inner.with_suffix(".py"), inner / "__init__.py") if one.is_file())


def _named_in(module: Path, folder: Path) -> Iterator[Path]:
    """Files and folders whose names stand in a module, seen from the task's folder, in which a task runs."""
    above = {folder.resolve(), *folder.resolve().parents}
    for node in ast.walk(_tree_of(module) or ast.Module([], [])):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and _is_there(path := folder / text, above):
            yield path.resolve() if ".." in path.parts else path


def _is_there(path: Path, above: Collection[Path]) -> bool:
    """Whether a text is the name of a file, or of a folder in which the task itself does not lie."""
    # A long text is no name, and what may not be looked at is none that counts.
    with suppress(OSError):
        return path.is_file() or (path.is_dir() and path.resolve() not in above)
    return False
