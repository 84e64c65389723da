"""Objects in a folder that machines share by their file system, with conditions that need no lock of files.

Network file systems do not lock alike, but all of them refuse a link under a name that is taken. So each version of an
object that is written on a condition is a file of its own, `name~1`, `name~2`, ...: the next version is made by linking
a whole file to the next number, which one writer alone can. The highest number counts; older ones go, but for the first
two. What is sent as a file has no versions, and is kept under another name where its own would look like one.
"""

import contextlib
import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tunemill.resources.errors import StoreError, UnreachableError
from tunemill.resources.folders import fsync
from tunemill.resources.object_types import Entry, Stored

VERSION = re.compile(r"(?P<name>.+)~(?P<number>\d+)", re.DOTALL)
HALF = ".half-"
# Names of files that are sent, and what their folder calls them: `x~1` is `x~1~`, `.half-x` is `~.half-x`.
LIKE_VERSION, LIKE_HALF = re.compile(r".+~\d+~*", re.DOTALL), re.compile(rf"~*{re.escape(HALF)}.*", re.DOTALL)
# Whoever writes has written something within this time.
TORN_SECONDS = 86_400.0
COPY_BYTES = 1 << 20
GONE = "the folder is gone; mount what it is in. `--store off` goes on without it"
# It answers, and does not do it.
REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG, errno.EFBIG)


@dataclass(frozen=True)
class FolderObjects:
    """Objects below a folder."""

    url: str
    root: Path

    def is_empty(self) -> bool:
        """Whether there is nothing at all, as where something else is to be mounted."""
        with self._reaching():
            return next(self.root.iterdir(), None) is None

    def get(self, name: str) -> Stored | None:
        with self._reaching():
            while True:
                number = self._newest(name)
                if number is None:
                    return None
                path = self._version(name, number)
                # Replaced between the two looks: the next one sees the newer.
                with contextlib.suppress(FileNotFoundError):
                    content, state = path.read_bytes(), path.stat()
                    changed = datetime.fromtimestamp(state.st_mtime, UTC)
                    return Stored(content, _mark(number, state), changed)

    def create(self, name: str, content: bytes) -> str | None:
        with self._reaching():
            if self._newest(name) is not None:
                return None
            return self._link(name, content, 1)

    def replace(self, name: str, content: bytes, mark: str) -> str | None:
        now = self.get(name)
        if now is None or now.mark != mark:
            return None
        before = int(mark.partition("-")[0])
        with self._reaching():
            made = self._link(name, content, before + 1)
            if made is not None:
                # The first two stay: see `_newest`. Whoever was slow finds the first one taken.
                for number in range(max(3, before - 2), before + 1):
                    self._version(name, number).unlink(missing_ok=True)
            return made

    def delete(self, name: str) -> None:
        with self._reaching():
            for number in sorted(self._numbers(name)):
                self._version(name, number).unlink(missing_ok=True)
            self._file(name).unlink(missing_ok=True)

    def send(self, name: str, path: Path) -> None:
        target = self._file(name)
        with self._reaching():
            target.parent.mkdir(parents=True, exist_ok=True)
            half = target.with_name(f"{HALF}{uuid.uuid4().hex}")
            try:
                shutil.copyfile(path, half)
                fsync(half)
                half.replace(target)
            finally:
                half.unlink(missing_ok=True)

    def fetch(self, name: str, path: Path, size: int) -> None:
        with path.open("ab") as target:
            for content in self._read(name, target.tell(), size):
                target.write(content)

    def size(self, name: str) -> int | None:
        with self._reaching(), contextlib.suppress(FileNotFoundError):
            return self._file(name).stat().st_size
        return None

    def listing(self, prefix: str) -> Iterator[Entry]:
        with self._reaching():
            newest: dict[Path, int] = {}
            for parent, _, files in os.walk(self.root / prefix):
                for file in files:
                    found = VERSION.fullmatch(file)
                    if file.startswith(HALF):
                        continue
                    if found is None:
                        newest[Path(parent) / file] = 0
                    else:
                        whole = Path(parent) / found["name"]
                        newest[whole] = max(newest.get(whole, 0), int(found["number"]))
            for path, number in sorted(newest.items()):
                name = path.relative_to(self.root).as_posix()
                with contextlib.suppress(FileNotFoundError):
                    state = (self._version(name, number) if number else path).stat()
                    changed = datetime.fromtimestamp(state.st_mtime, UTC)
                    yield Entry(_sent_as(name), state.st_size, _mark(number, state), changed)

    def sweep(self, now: datetime) -> None:
        for parent, _, files in os.walk(self.root):
            for file in files:
                path = Path(parent) / file
                with self._reaching(), contextlib.suppress(FileNotFoundError):
                    if file.startswith(HALF) and now.timestamp() - path.stat().st_mtime > TORN_SECONDS:
                        path.unlink()

    def _read(self, name: str, begin: int, size: int) -> Iterator[bytes]:
        """A file's contents. What the other end of the copy says of its disk is not said of this place."""
        with self._reaching():
            source = self._file(name).open("rb")
        with source:
            source.seek(begin)
            while begin < size:
                with self._reaching():
                    content = source.read(min(COPY_BYTES, size - begin))
                if not content:
                    return
                begin += len(content)
                yield content

    def _file(self, name: str) -> Path:
        """Where a file that is sent lies."""
        folder, _, file = name.rpartition("/")
        if LIKE_VERSION.fullmatch(file):
            file = f"{file}~"
        elif LIKE_HALF.fullmatch(file):
            file = f"~{file}"
        return self.root / folder / file

    def _link(self, name: str, content: bytes, number: int) -> str | None:
        """Make a version whole and at once; None where there is one with its number, or a newer one."""
        target = self._version(name, number)
        target.parent.mkdir(parents=True, exist_ok=True)
        half = target.with_name(f"{HALF}{uuid.uuid4().hex}")
        half.write_bytes(content)
        fsync(half)
        try:
            with contextlib.suppress(FileExistsError):
                os.link(half, target)
            # NFS may say that the name is taken where its answer got lost: two names of one file tell.
            state = half.stat()
            if state.st_nlink != 2:
                return None
        finally:
            half.unlink(missing_ok=True)
        if self._newest(name) != number:
            # Somebody was faster, and has cleared the versions between away.
            target.unlink(missing_ok=True)
            return None
        return _mark(number, state)

    def _newest(self, name: str) -> int | None:
        if self._version(name, 1).exists() and not self._version(name, 2).exists():
            # Written once, as most are: there is no need to list thousands beside it.
            return 1
        return max(self._numbers(name), default=None)

    def _numbers(self, name: str) -> list[int]:
        folder, own = (self.root / name).parent, (self.root / name).name
        try:
            names = os.listdir(folder)  # noqa: PTH208  strings
        except FileNotFoundError:
            return []
        found = (VERSION.fullmatch(item) for item in names)
        return [int(item["number"]) for item in found if item is not None and item["name"] == own]

    def _version(self, name: str, number: int) -> Path:
        path = self.root / name
        return path.with_name(f"{path.name}~{number}")

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        if not self.root.is_dir():
            # It is neither empty nor to be made.
            raise UnreachableError(f"{self.url}: {GONE}")
        try:
            yield
        except FileNotFoundError:
            raise
        except PermissionError as error:
            raise StoreError(f"{self.url}: may not be read or written ({error.strerror})") from error
        except OSError as error:
            if error.errno in REFUSED:
                raise StoreError(f"{self.url}: takes nothing more ({error.strerror})") from error
            raise UnreachableError(f"{self.url}: cannot be reached ({error.strerror})") from error


def _mark(number: int, state: os.stat_result) -> str:
    return f"{number}-{state.st_ino}-{state.st_mtime_ns}"


def _sent_as(name: str) -> str:
    """The name of a file by the one that its folder calls it."""
    folder, slash, file = name.rpartition("/")
    if file.endswith("~") and LIKE_VERSION.fullmatch(file[:-1]):
        file = file[:-1]
    elif file.startswith("~") and LIKE_HALF.fullmatch(file[1:]):
        file = file[1:]
    return f"{folder}{slash}{file}"
