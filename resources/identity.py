"""What a local file or folder is: its contents. A look at an unchanged file costs one `stat`.

The cache of hashes is keyed by device, inode, size, mtime and ctime. ctime is in it because mtime can be
set back by anybody, ctime cannot.
"""

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from functools import cache
from pathlib import Path

from tunemill.resources.canonical import hash_listing
from tunemill.resources.errors import StoreError
from tunemill.resources.storage_errors import storage_message

CHUNK_BYTES = 1 << 20
# A file changed less than this before it was hashed may change again within one clock tick of the file system and keep
# its ctime, so its hash is not remembered. Some file systems count in seconds, and FAT in two of them.
SETTLED_NANOSECONDS = 2_500_000_000
# They never tell of a write through a memory map after the first one, and a look at their files costs little.
FORGETFUL = ("tmpfs", "ramfs")


def hash_file(path: Path) -> str:
    """SHA-256 (hex) of a file's contents."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class StatCache:
    """Remembers the hash of a file for as long as its `stat` stays the same. One SQLite file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def hash(self, path: Path) -> str:
        """SHA-256 of the file, from memory if its stat has not moved since it was last hashed."""
        state = path.stat()
        stamp = repr((state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns))
        known = self._ask("SELECT sha256 FROM files WHERE stamp = ?", stamp)
        if known is not None:
            return known
        digest, is_settled = _hash_settled(path, state)
        if is_settled:
            self._write("INSERT OR REPLACE INTO files VALUES (?, ?)", stamp, digest)
        return digest

    def remember(self, name: str, identity: Mapping[str, str]) -> None:
        """Record what a remote name was when it was last reached."""
        self._write("INSERT OR REPLACE INTO remote VALUES (?, ?)", name, json.dumps(dict(identity)))

    def recall(self, name: str) -> dict[str, str] | None:
        """What `remember` recorded of a name."""
        known = self._ask("SELECT identity FROM remote WHERE name = ?", name)
        return None if known is None else dict(json.loads(known))

    def _ask(self, question: str, name: str) -> str | None:
        """The one answer; None where there is none, or the cache cannot be read."""
        try:
            with closing(self._connect()) as connection:
                row = connection.execute(question, (name,)).fetchone()
        except (sqlite3.DatabaseError, OSError) as error:
            self._give_up(error)
            return None
        return None if row is None else str(row[0])

    def _write(self, statement: str, *values: str) -> None:
        """Remember something, if the disk takes it: a full or read-only one costs time, and no answer."""
        try:
            with closing(self._connect()) as connection, connection:
                connection.execute(statement, values)
        except (sqlite3.DatabaseError, OSError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """The cache only saves time: a damaged one is thrown away, one that cannot be reached now is left alone."""
        if isinstance(error, OSError) or storage_message(error, self.path) is not None:
            return
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=30)
        connection.execute("CREATE TABLE IF NOT EXISTS files (stamp TEXT PRIMARY KEY, sha256 TEXT NOT NULL)")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS remote (name TEXT PRIMARY KEY, identity TEXT NOT NULL)"
        )
        return connection


def _hash_settled(path: Path, state: os.stat_result) -> tuple[str, bool]:
    """The hash, and whether any change from now on will show in the file's `stat`.

    A write through a memory map moves the times only if the page was written back since the last one; `fsync` does
    that, so the next write shows.
    """
    is_settled = time.time_ns() - state.st_ctime_ns > SETTLED_NANOSECONDS and not _forgets(state.st_dev)
    with path.open("rb") as file:
        if is_settled:
            try:
                os.fsync(file.fileno())
            except OSError:
                is_settled = False
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return digest, is_settled and os.fstat(file.fileno()).st_ctime_ns == state.st_ctime_ns


@cache
def _forgets(device: int) -> bool:
    """Whether a device is of a file system in memory, as far as this machine says."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return False
    number = f"{os.major(device)}:{os.minor(device)}"
    kinds = [line.partition(" - ")[2].split()[0] for line in mounts if line.split()[2] == number]
    return any(kind in FORGETFUL for kind in kinds)


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below a folder in a fixed order; hidden files and folders are left out."""
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(parent) / name


def identify(path: Path, stat_cache: StatCache) -> dict[str, str]:
    """The identity of a source that enters a key: kind and content hash, never its name.

    Raises StoreError when there is nothing at the path, or something in it cannot be read.
    """
    try:
        if path.is_file():
            return {"kind": "file", "sha256": stat_cache.hash(path)}
        if path.is_dir():
            listing = {file.relative_to(path).as_posix(): stat_cache.hash(file) for file in files_below(path)}
            return {"kind": "folder", "sha256": hash_listing(listing)}
    except OSError as error:
        raise StoreError(f"{error.filename or path}: {error.strerror}") from error
    raise StoreError(f"{path}: there is no such file or folder")
