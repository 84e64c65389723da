"""A disk that is full, read-only or broken, as one sentence: whoever noticed it first, a file or a database."""

import errno
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunemill.resources.errors import StoreError

FULL = (errno.ENOSPC, errno.EDQUOT)
# What may not be read says the same, so the last two count below the folder alone.
READ_ONLY, FORBIDDEN = (errno.EROFS,), (errno.EACCES, errno.EPERM)
# What SQLite says -> what it is. https://sqlite.org/rescode.html
DATABASES_SAY = {
    "disk is full": "full",
    "readonly database": "closed",
    "unable to open database file": "closed",
    "disk i/o error": "broken",
    "database is locked": "busy",
}
# Without the room for its journal SQLite speaks of an I/O error.
JOURNAL_BYTES = 1 << 16


@contextmanager
def one_storage_error(root: Path, wrapper: type[Exception] = sqlite3.Error) -> Iterator[None]:
    """Raises StoreError in place of an error of the disk below `root`; other errors pass.

    `wrapper` is a further class whose causes may be errors of SQLite.
    """
    try:
        yield
    except (OSError, sqlite3.Error, wrapper) as error:
        message = storage_message(error, root)
        if message is None:
            raise
        raise StoreError(message) from error


def storage_message(error: BaseException | None, root: Path) -> str | None:
    """What is wrong with the disk below `root` and what to do; None if the error says nothing of the kind."""
    while error is not None:
        kind = _kind(error, root)
        if kind == "broken" and _free_bytes(root) < JOURNAL_BYTES:
            kind = "full"
        if kind is not None:
            return _message(kind, error, root)
        error = error.__cause__ or error.__context__
    return None


def _kind(error: BaseException, root: Path) -> str | None:
    if isinstance(error, OSError):
        if error.errno in FULL:
            return "full"
        if error.errno in READ_ONLY or (error.errno in FORBIDDEN and _is_below(error.filename, root)):
            return "closed"
        return "broken" if error.errno == errno.EIO else None
    if isinstance(error, sqlite3.Error):
        said = str(error).lower()
        return next((kind for words, kind in DATABASES_SAY.items() if words in said), None)
    return None


def _message(kind: str, error: BaseException, root: Path) -> str:
    place = getattr(error, "filename", None) or root
    match kind:
        case "full":
            return (
                f"the disk is full: {place} ({_free_bytes(root) / 1e6:.1f} MB free). What is finished is kept, nothing "
                f"half-done was published. Free some space (`tunemill cache prune --state {root}` clears what nothing "
                f"points to), then run again"
            )
        case "closed":
            return (
                f"{place} may not be written ({_words(error)}). What is there can be looked at, but not added to: "
                f"give another folder with --state, or make this one writable"
            )
        case "busy":
            return (
                f"{root}: another process holds its database and does not let go; run again when it has ended"
            )
        case _:
            return f"{place}: the disk failed ({_words(error)}); nothing half-done was published. Look at the disk"


def _is_below(name: object, root: Path) -> bool:
    return isinstance(name, str) and Path(name).absolute().is_relative_to(root.absolute())


def _words(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error)


def _free_bytes(root: Path) -> int:
    there = next(path for path in (root, *root.parents) if path.exists())
    return shutil.disk_usage(there).free
