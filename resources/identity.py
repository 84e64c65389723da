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
from pathlib import Path

from tunemill.resources.canonical import hash_listing
from tunemill.resources.errors import StoreError
from tunemill.resources.local import file_system_of, is_file, is_folder, refusal, refusal_inside, shown
from tunemill.resources.storage_errors import storage_message

CHUNK_BYTES = 1 << 20
# A file changed less than this before it was hashed may change again within one clock tick of the file system and keep
# its ctime, so its hash is not remembered. Some file systems count in seconds, and FAT in two of them.
SETTLED_NANOSECONDS = 2_500_000_000
# They never tell of a write through a memory map after the first one, and a look at their files costs little.
FORGETFUL = frozenset({"tmpfs", "ramfs"})


def hash_file(path: Path) -> str:
    """SHA-256 (hex) of a file's contents."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class StatCache:
    """Remembers the hash of a file for as long as its `stat` stays the same. One SQLite file.

    What a process has read of it once it knows: hundreds of pipelines may be made from the same files.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, str] = {}

    def hash(self, path: Path) -> str:
        """SHA-256 of the file, from memory if its stat has not moved since it was last hashed."""
        state = path.stat()
        stamp = repr((state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns))
        if (known := self._known.get(stamp)) is not None:
            return known
        digest = self._ask("SELECT sha256 FROM files WHERE stamp = ?", stamp)
        if digest is None:
            digest, is_settled = _hash_settled(path, state)
            if not is_settled:
                return digest
            self._write("INSERT OR REPLACE INTO files VALUES (?, ?)", stamp, digest)
        self._known[stamp] = digest
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
    is_settled = time.time_ns() - state.st_ctime_ns > SETTLED_NANOSECONDS
    is_settled = is_settled and not file_system_of(state.st_dev) & FORGETFUL
    with path.open("rb") as file:
        if is_settled:
            try:
                os.fsync(file.fileno())
            except OSError:
                is_settled = False
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return digest, is_settled and os.fstat(file.fileno()).st_ctime_ns == state.st_ctime_ns


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below a folder in a fixed order; hidden files and folders are left out."""
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(parent) / name


def source_files(folder: Path) -> Iterator[Path]:
    """Every file below a folder of the user's; hidden files and folders are left out.

    Raises StoreError for what is neither a file nor a folder, and for a link to a folder around it, which has no end;
    OSError for a folder that cannot be listed.
    """
    pending = [(folder, frozenset[tuple[int, int]]())]
    while pending:
        place, around = pending.pop()
        state = place.stat()
        itself = (state.st_dev, state.st_ino)
        if itself in around:
            raise StoreError(f"{shown(place)}: it is a link to a folder around it; remove it")
        for name in sorted(name for name in os.listdir(place) if not name.startswith(".")):  # noqa: PTH208  a string
            path = place / name
            if reason := refusal_inside(path):
                raise StoreError(f"{shown(path)}: {reason}")
            if is_folder(path):
                pending.append((path, around | {itself}))
            else:
                yield path


def identify(path: Path, stat_cache: StatCache) -> dict[str, str]:
    """The identity of a source that enters a key: kind and content hash, never its name.

    Raises StoreError when there is nothing at the path, or something in it cannot be read or is no regular file.
    """
    if reason := refusal(path):
        raise StoreError(f"{shown(path)}: {reason}")
    try:
        if is_file(path):
            return {"kind": "file", "sha256": stat_cache.hash(path)}
        if is_folder(path):
            listing = {
                file.relative_to(path).as_posix(): stat_cache.hash(file) for file in source_files(path)
            }
            return {"kind": "folder", "sha256": hash_listing(listing)}
    except OSError as error:
        raise StoreError(f"{error.filename or path}: {error.strerror}") from error
    raise StoreError(f"{path}: there is no such file or folder")
