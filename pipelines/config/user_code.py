"""A user's own Python functions: which local files are behind a dotted name such as `my_module.transform`."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunemill.resources.local import absolute, is_file, is_folder, is_there, refusal

DOTTED_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
# What other tools write: a file or a module, and what is meant of it behind one colon or two.
WITH_COLON = re.compile(r"(?P<place>.+?)(\.py)?::?(?P<own>[A-Za-z_]\w*)")


def code_files(name: Any, folder: Path) -> list[str] | None:
    """The module's file below `folder`, then those of the local modules that it imports, or None if there is none.

    `name` is a module, or a function in one; packages count with their `__init__.py`.
    """
    if not isinstance(name, str) or not DOTTED_NAME.fullmatch(name):
        return None
    parts = name.split(".")
    candidates = (_module_file(folder, parts[:length]) for length in (len(parts), len(parts) - 1) if length)
    module = next((file for file in candidates if file is not None), None)
    if module is None:
        return None
    found = [module]
    for file in found:
        others = dict.fromkeys((*_packages(file, folder), *_imported(file, folder)))
        found += [other for other in others if other not in found]
    return [str(found[0]), *sorted(str(file) for file in found[1:])]


def misspelt(name: str, folder: Path) -> str | None:
    """How something of a local file is named rightly, in words; None where a name means no such file."""
    parts = WITH_COLON.fullmatch(name)
    if parts is None:
        return None
    places = (parts["place"], parts["place"].replace(".", "/"))
    file = next((one for place in places if is_file(one := Path(absolute(f"{place}.py", folder)))), None)
    if file is None:
        return None
    own, around = parts["own"], folder.resolve()
    if not file.is_relative_to(around):
        return (
            f"{name}: {file} is not beside the YAML, and nothing is looked for elsewhere. Copy it there, and write "
            f"{file.stem}.{own}"
        )
    module = ".".join(file.relative_to(around).with_suffix("").parts)
    return f"{name}: what {file.name} has is named by dots. Write {module}.{own}"


def _module_file(folder: Path, parts: list[str]) -> Path | None:
    place = Path(absolute("/".join(parts), folder))
    for file in (place.with_suffix(".py"), place / "__init__.py"):
        # What is there and is no regular file is a source too, and refused as one.
        if is_there(file) and not is_folder(file):
            return file
    return None


def _packages(file: Path, folder: Path) -> Iterator[Path]:
    """What Python runs before the file: the `__init__.py` of every package around it."""
    for parent in file.parents:
        if parent == folder.resolve():
            return
        if (parent / "__init__.py").is_file():
            yield parent / "__init__.py"


def _imported(file: Path, folder: Path) -> Iterator[Path]:
    """Local modules that a file imports, wherever in it; a file that does not parse imports nothing."""
    if refusal(file):
        return
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [(folder, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = file.parents[node.level - 1] if node.level else folder
            base = f"{node.module}." if node.module else ""
            names = [(start, node.module)] if node.module else []
            names += [(start, base + alias.name) for alias in node.names]
        else:
            continue
        for start, name in names:
            parts = name.split(".")
            for length in range(1, len(parts) + 1):
                if found := _module_file(start, parts[:length]):
                    yield found
