"""Fingerprints of the stages' source, so that changed results never hide behind an old version.

`stages/versions.json` records each stage's version and fingerprint. When a fingerprint moves, a test fails
until somebody has either raised the stage's version (its results change) or recorded it again as it is
(they do not): `python -m tunemill.pipelines.graph.fingerprint record STAGE`.
"""

import ast
import hashlib
import json
import re
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tunemill.stages.declaration import Stage
from tunemill.stages.registry import STAGES

ROOT = Path(__file__).resolve().parent.parent.parent
STAGES_FOLDER = ROOT / "stages"
RECORD = STAGES_FOLDER / "versions.json"
# The contract between stages and pipeline holds no computation; a new artifact type changes no result.
CONTRACT = frozenset({"declaration.py", "artifacts.py", "errors.py", "report.py"})
# What is looked at of results that are there: no result comes from it.
CHECKS = "checks.py"
# A module of the project, or something in one, named by a string.
DOTTED = re.compile(r"tunemill(\.\w+){2,}(:\w+|\.)?")
# Fields of AST nodes that carry no meaning, or that only some versions of Python have.
MEANINGLESS = frozenset({"ctx", "kind", "type_comment", "type_params"})


def files_of(stage: Stage, imports: Callable[[Path], Sequence[Path]]) -> set[Path]:
    """Every file that the stage's results may come from: those of the body's folder, and all that these import.

    `imports`: those of a file. A module that is named by a string (`tunemill.stages.x:function`) counts as imported,
    and so does every module below a folder that is named by one (`tunemill.stages.x.`).
    """
    files = set(folder_of_body(stage).rglob("*.py"))
    pending = list(files)
    while pending:
        for imported in imports(pending.pop()):
            if imported not in files:
                files.add(imported)
                pending.append(imported)
    return files


def folder_of_body(stage: Stage) -> Path:
    """The stage's own folder."""
    body = _file_of(stage.body.split(":")[0])
    assert body is not None, f"{stage.name}: there is no {stage.body}"
    return body.parent


def fingerprints(stages: Sequence[Stage]) -> dict[str, str]:
    """Of each stage SHA-256 over the meaning of its modules, and the files that they read by the name of their folder.

    Stages share most of their files, so each is looked at once.
    """
    text, imports, read_by = cache(Path.read_text), cache(_imports), cache(_read_by)
    found = {}
    for stage in stages:
        files = files_of(stage, imports)
        read = {file for path in files for file in read_by(path)}
        meanings = [_named(path, _meaning_of(text(path))) for path in sorted(files)]
        meanings += [_named(path, text(path)) for path in sorted(read)]
        found[stage.name] = hashlib.sha256("\n".join(meanings).encode()).hexdigest()
    return found


def current() -> dict[str, dict[str, Any]]:
    """Version and fingerprint of every stage as it is now."""
    found = fingerprints(STAGES)
    return {stage.name: {"version": stage.version, "fingerprint": found[stage.name]} for stage in STAGES}


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


def _imports(path: Path) -> list[Path]:
    imported, named = _references(path.read_text())
    # The beginning of several names: whatever it is completed to.
    found = [file for name in named for file in _folder_of(name).rglob("*.py")]
    files = (_file_of(module) for module in (*imported, *named))
    return found + [
        file
        for file in files
        if file is not None
        and file.name != CHECKS
        and not (file.name in CONTRACT and file.parent == STAGES_FOLDER)
    ]


@cache
def _references(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The modules that a module imports, and those that it names in strings."""
    imported: list[str] = []
    named: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            imported += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and DOTTED.fullmatch(node.value):
            named.append(node.value.split(":")[0].rstrip("."))
    return tuple(imported), tuple(named)


def _read_by(path: Path) -> list[Path]:
    """What a module may read that is no module: the files of a folder beside it that it names, such as `templates`."""
    folders = (path.parent / name for name in _words(path.read_text()))
    return [
        file for folder in folders if folder.is_dir() for file in folder.rglob("*.jinja") if file.is_file()
    ]


@cache
def _words(text: str) -> frozenset[str]:
    constants = (node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant))
    return frozenset(value for value in constants if isinstance(value, str) and value.isidentifier())


def _named(path: Path, text: str) -> str:
    return f"{path.relative_to(ROOT).as_posix()}\n{text}"


@cache
def _meaning_of(text: str) -> str:
    return _meaning(ast.parse(text))


def _file_of(module: str) -> Path | None:
    file = _folder_of(module).with_suffix(".py")
    return file if module.startswith("tunemill.") and file.is_file() else None


def _folder_of(module: str) -> Path:
    return ROOT.joinpath(*module.split(".")[1:])


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
