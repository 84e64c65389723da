"""Fingerprints of the stages' source, so that changed results never hide behind an old version.

`stages/versions.json` records each stage's version and fingerprint. When a fingerprint moves, a test fails
until somebody has either raised the stage's version (its results change) or recorded it again as it is
(they do not): `python -m tunemill.pipelines.fingerprint record STAGE`.
"""

import ast
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tunemill.pipelines.graph import STAGES
from tunemill.stages.declaration import Stage

STAGES_FOLDER = Path(__file__).resolve().parent.parent / "stages"
RECORD = STAGES_FOLDER / "versions.json"
# The contract between stages and pipeline holds no computation; a new artifact type changes no result.
CONTRACT = frozenset({"declaration.py", "artifacts.py", "errors.py", "report.py"})
# Fields of AST nodes that carry no meaning, or that only some versions of Python have.
MEANINGLESS = frozenset({"ctx", "kind", "type_comment", "type_params"})


def fingerprint(stage: Stage) -> str:
    """SHA-256 over the meaning of the stage's modules and of every project module that they import."""
    folder = STAGES_FOLDER / stage.body.split(":")[0].split(".")[2]
    files = set(folder.rglob("*.py"))
    pending = list(files)
    while pending:
        for imported in _imports(pending.pop()):
            if imported not in files:
                files.add(imported)
                pending.append(imported)
    root = STAGES_FOLDER.parent
    meanings = [
        f"{path.relative_to(root).as_posix()}\n{_meaning(ast.parse(path.read_text()))}"
        for path in sorted(files)
    ]
    # Chat templates are read by name, so those beside a module count as imported by it.
    templates = {template for path in files for template in path.parent.glob("templates/**/*.jinja")}
    meanings += [f"{path.relative_to(root).as_posix()}\n{path.read_text()}" for path in sorted(templates)]
    return hashlib.sha256("\n".join(meanings).encode()).hexdigest()


def current() -> dict[str, dict[str, Any]]:
    """Version and fingerprint of every stage as it is now."""
    return {stage.name: {"version": stage.version, "fingerprint": fingerprint(stage)} for stage in STAGES}


def recorded() -> dict[str, dict[str, Any]]:
    """What `stages/versions.json` says."""
    return dict(json.loads(RECORD.read_text())) if RECORD.exists() else {}


def main(arguments: Sequence[str]) -> int:
    """`record STAGE ...` (or `record --all`) records stages as they are now; without it, show what moved."""
    now, before = current(), recorded()
    if not arguments:
        moved = [name for name in now if now[name] != before.get(name)]
        print("\n".join(moved) or "nothing moved")
        return 1 if moved else 0
    names = list(now) if "--all" in arguments else arguments[1:]
    RECORD.write_text(
        json.dumps({**before, **{name: now[name] for name in names}}, indent=1, sort_keys=True) + "\n"
    )
    return 0


def _imports(path: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(path.read_text())):
        modules: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        for module in modules:
            package, *parts = module.split(".")
            file = STAGES_FOLDER.parent.joinpath(*parts).with_suffix(".py") if parts else None
            if package == "tunemill" and file and file.is_file() and file.name not in CONTRACT:
                yield file


def _meaning(node: Any) -> str:
    """A spelling of a syntax tree without positions, docstrings and empty fields; the same on every Python."""
    if isinstance(node, list):
        return "[" + ",".join(_meaning(item) for item in node) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(value, list):
            value = [item for item in value if not _is_docstring(item)]
        if name not in MEANINGLESS and value not in (None, []):
            fields.append(f"{name}={_meaning(value)}")
    return f"{type(node).__name__}({','.join(fields)})"


def _is_docstring(node: Any) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
