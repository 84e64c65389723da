"""Versions of packages that are named in a YAML, for keys: what is imported under a name may be of no distribution."""

import hashlib
import importlib.util
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def version_or_contents(package: str) -> str:
    """The version of the distribution of this name; of what none has brought, a hash of its Python files."""
    try:
        return version(package)
    except PackageNotFoundError:
        return _contents(package)


def _contents(package: str) -> str:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return "not installed"
    folders = [Path(place) for place in spec.submodule_search_locations or ()]
    files = [(file, file.relative_to(folder)) for folder in folders for file in sorted(folder.rglob("*.py"))]
    if not folders and spec.origin is not None and Path(spec.origin).is_file():
        files = [(Path(spec.origin), Path(package))]
    digest = hashlib.sha256()
    for file, shown in files:
        content = file.read_bytes()
        digest.update(f"{shown.as_posix()} {len(content)}\n".encode() + content)
    return f"sha256 {digest.hexdigest()}"
