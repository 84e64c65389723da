"""Folders of the store: listed without silence, written through, moved and removed although they are read-only."""

import fcntl
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunemill.resources.errors import StoreError


def listed(folder: Path) -> list[Path]:
    """What is in a folder, sorted; nothing where there is no folder. Raises StoreError where no answer can be had.

    Hidden entries, which are half written, are left out.
    """
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:
        if folder.is_symlink():
            raise StoreError(
                f"{folder}: is a link to nowhere; remove it, or put back what it named"
            ) from None
        return []
    except OSError as error:
        raise StoreError(f"{folder}: cannot be listed ({error.strerror})") from error
    return [path for path in paths if not path.name.startswith(".")]


def read_json(path: Path) -> Any:
    """What a JSON file holds; None where it cannot be read, or is no regular file, which might never end."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def write_json(path: Path, document: Any) -> None:
    """Replace a JSON file as a whole, and write it through to the disk: readers see the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{uuid.uuid4().hex}")
    with beside.open("w") as file:
        file.write(json.dumps(document))
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def make_durable(folder: Path) -> None:
    """Write everything below a folder through to the disk and take away everybody's right to change it.

    Whom the umask lets read files may read these, whatever rights a library gave them.
    """
    hidden = umask() & 0o077
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(parent) / name
            fsync(path)
            path.chmod(0o444 & ~hidden)
        fsync(Path(parent))
        Path(parent).chmod(0o555 & ~hidden)


def move(folder: Path, to: Path) -> None:
    """Rename a folder, which on Linux needs the right to write into it."""
    if folder.is_dir() and not folder.is_symlink():
        mode = stat.S_IMODE(folder.stat().st_mode)
        folder.chmod(mode | stat.S_IWUSR)
        folder.rename(to)
        to.chmod(mode)
    else:
        folder.rename(to)


def remove_tree(folder: Path) -> None:
    """Remove a folder with read-only folders in it; nothing happens where there is none."""
    if folder.is_symlink() or not folder.is_dir():
        folder.unlink(missing_ok=True)
        return
    for parent, names, _ in os.walk(folder):
        Path(parent).chmod(0o700)
        for name in names:
            if not (path := Path(parent) / name).is_symlink():
                path.chmod(0o700)
    shutil.rmtree(folder)


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """One process of this machine after the other works on a folder that is made where it is not there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("a") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        folder.mkdir(exist_ok=True)
        yield


@contextmanager
def while_nobody_works(folder: Path) -> Iterator[bool]:
    """No process of this machine begins to work on a folder meanwhile; False where one does."""
    with folder.with_name(f"{folder.name}.lock").open("a") as guard:
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def umask() -> int:
    """The umask of this process. Asking the system for it would change it for a moment, for every thread."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("Umask:")[2].split()[0], 8)
    except (OSError, IndexError):
        found = os.umask(0o022)
        os.umask(found)
        return found


def fsync(path: Path) -> None:
    """Write a file or folder through to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
