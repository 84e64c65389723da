"""Names of places on this machine, whatever a user wrote.

`Path` raises for a name that is too long or leads in a circle, where `os.path` says that nothing is there.
"""

# ruff: noqa: PTH110, PTH111, PTH112, PTH113

import os
import re
from pathlib import Path

from tunemill.resources.errors import StoreError

# A path has lost one of the slashes: `s3:/bucket`.
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def local_path(name: str | Path, what: str) -> Path:
    """The path behind a name, with `~` filled in. Raises StoreError for a URL and for what cannot be a path."""
    if URL.match(str(name)):
        raise StoreError(f"{what} must be on this machine, and {name} is a URL; give a local path")
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise StoreError(f"{what}: there is no home folder behind {name}; write the whole path") from error


def absolute(name: str, folder: Path) -> str:
    """The name seen from a folder. What cannot be a path stays a name, and nothing is found there."""
    return os.path.realpath(folder / os.path.expanduser(name))


def is_there(path: str | Path) -> bool:
    """Whether there is a file or folder; False for what cannot be a path."""
    return os.path.exists(path)


def is_file(path: str | Path) -> bool:
    """Whether there is a file; False for what cannot be a path."""
    return os.path.isfile(path)


def is_folder(path: str | Path) -> bool:
    """Whether there is a folder; False for what cannot be a path."""
    return os.path.isdir(path)
