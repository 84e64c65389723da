"""Objects of a place that machines share: small ones written on a condition, files of any size, listings.

A condition is what makes a lease or a manifest one machine's: an object is created only where there is none, and
replaced only where it is still what was read. S3, Google's and Azure's stores are reached by obstore, which has both
for all of them; a folder by `folder_objects.py`. obstore is imported where it is needed. It hangs in a process that was
forked after it was used: this project starts processes anew.
"""

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any, Protocol

from tunemill.resources.errors import StoreError, UnreachableError
from tunemill.resources.folder_objects import FolderObjects
from tunemill.resources.object_types import Entry, Stored
from tunemill.resources.protocols import protocol_of, without_credentials

# In place of a URL: whatever a YAML names does not count.
NO_TEAM = "off"
# What can be written on a condition. `memory` is none: it ends with the process.
BUCKETS = ("s3", "s3a", "gs", "az", "abfs", "abfss")
FOLDERS = ("file",)
# A lease is kept by small writes, which must not hang; joining the parts of a large object takes S3 minutes.
# Of an answer, of a connection, and how often it is tried again.
SMALL, BULK, QUICK = ("30s", "10s", 4), ("900s", "10s", 4), ("8s", "4s", 1)
RETRY_SECONDS = 40.0
# In S3's and Google's words, and in Azure's.
NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
CODE = re.compile(r"<Code>(\w+)</Code>")
NOBODY = "it lets nobody in with the credentials of this environment"
# What is in an answer -> what is wrong. https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
REFUSALS = {
    (
        "ExpiredToken",
        "InvalidToken",
        "TokenRefreshRequired",
    ): "the credentials of this environment have expired; get new ones",
    (
        "RequestTimeTooSkewed",
        "RequestExpired",
    ): "it takes no request from a clock that is so wrong; set this machine's",
    (
        "AuthorizationHeaderMalformed",
        "PermanentRedirect",
        "Received redirect without LOCATION",
    ): "it is in another region; set AWS_REGION",
    ("169.254.169.254",): "there are no credentials in this environment, and this machine has no role. Set "
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; profiles in ~/.aws are not read",
    ("403 Forbidden", "401 Unauthorized"): NOBODY,
    (
        "501 Not Implemented",
    ): "it does not know how to write on a condition, without which two machines would compute the same",
    NO_BUCKET: "there is no such bucket",
}
# Here a version is told by a number of its own, and no condition is put on the mark.
NUMBERED = ("gs",)
CHUNK_BYTES = 16 << 20
# S3 takes 10,000 parts of an object, each of 5 MiB or more.
PART_BYTES, MOST_PARTS = 8 << 20, 9_000
AT_ONCE = 8


class Objects(Protocol):
    """Names are paths with slashes below the place. Each method raises UnreachableError where nobody answers, and
    StoreError where what answers refuses."""

    @property
    def url(self) -> str:
        """What the place is called."""

    def get(self, name: str) -> Stored | None:
        """A small object; None where there is none."""

    def create(self, name: str, content: bytes) -> str | None:
        """Write an object where there is none, and return its mark; None where there is one."""

    def replace(self, name: str, content: bytes, mark: str) -> str | None:
        """Write an object in place of the one with this mark, and return the new mark; None where it is gone or
        another one. The content is one that nobody else writes."""

    def delete(self, name: str) -> None:
        """Nothing happens where there is none."""

    def send(self, name: str, path: Path) -> None:
        """Copy a file there; readers see none of it or all."""

    def fetch(self, name: str, path: Path, size: int) -> None:
        """Copy a file of `size` bytes to here, from where a file that is cut off ends."""

    def size(self, name: str) -> int | None:
        """How many bytes a file that was sent has there; None where there is none."""

    def listing(self, prefix: str) -> Iterator[Entry]:
        """What there is below a folder. It may be behind."""

    def sweep(self, now: datetime) -> None:
        """Delete what nobody sees and whoever wrote it has long left; `now` is what time it is there."""


def fault_of_team_url(url: str) -> str | None:
    """Why no team can share a store at a URL, going by its text; None where it may."""
    if "://" not in url:
        return f"write a URL: s3://bucket/folder, gs://, az://, or file:///folder; {url!r} is none"
    if protocol_of(url) not in (*BUCKETS, *FOLDERS):
        return (
            f"{protocol_of(url)}:// cannot be written on a condition, without which two machines would compute the "
            f"same; take one of {', '.join((*BUCKETS, *FOLDERS))}"
        )
    if without_credentials(url) != url:
        return "leave out who you are: passwords and keys belong into the environment"
    if not url.partition("://")[2].strip("/"):
        return "names no bucket or folder"
    if protocol_of(url) in FOLDERS and not url.partition("://")[2].startswith("/"):
        return "write the whole path of the folder, with three slashes: file:///mnt/team"
    return None


def objects_at(url: str) -> Objects:
    """The objects of a place without faults. Raises StoreError where what reaches it is not installed."""
    if protocol_of(url) in FOLDERS:
        folder = Path(url.partition("://")[2])
        if not folder.is_dir():
            # Made here, it might lie below a folder that is not mounted.
            raise StoreError(
                f"{url}: there is no such folder; make it once, or mount what it is in. `--store off` goes on without"
            )
        return FolderObjects(url, folder)
    try:
        from obstore.store import from_url
    except ImportError as error:
        raise StoreError(
            f"{url}: a store of a team needs a package: pip install 'tunemill[team-store]'"
        ) from error
    is_plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
    with _reaching(url):
        small, bulk, quick = (
            from_url(
                url,
                client_options={
                    "timeout": timeout,
                    "connect_timeout": connect,
                    "allow_http": is_plain,
                },
                retry_config={"max_retries": retries, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
            )
            for timeout, connect, retries in (SMALL, BULK, QUICK)
        )
    return BucketObjects(url, small, bulk, quick)


@dataclass(frozen=True)
class BucketObjects:
    """Objects that obstore reaches; `bulk` is the same with more patience, and `quick` with less: it asks until
    anything has been `answered`."""

    url: str
    store: Any
    bulk: Any
    quick: Any
    answered: Event = field(default_factory=Event)

    @property
    def asked(self) -> Any:
        return self.store if self.answered.is_set() else self.quick

    def get(self, name: str) -> Stored | None:
        with _reaching(self.url):
            try:
                found = self.asked.get(name)
                self.answered.set()
                return Stored(bytes(found.bytes()), str(found.meta["e_tag"]), found.meta["last_modified"])
            except FileNotFoundError as error:
                self.answered.set()
                if any(word in str(error) for word in NO_BUCKET):
                    raise StoreError(f"{self.url}: there is no such bucket") from error
                return None

    def create(self, name: str, content: bytes) -> str | None:
        return self._put(name, content, "create")

    def replace(self, name: str, content: bytes, mark: str) -> str | None:
        if protocol_of(self.url) not in NUMBERED:
            return self._put(name, content, {"e_tag": mark})
        with _reaching(self.url):
            try:
                now = self.store.head(name)
            except FileNotFoundError:
                return None
        # What is written between this look and the next line has another number.
        return self._put(name, content, {"version": now["version"]}) if now["e_tag"] == mark else None

    def _put(self, name: str, content: bytes, mode: Any) -> str | None:
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with _reaching(self.url):
            try:
                return str(self.store.put(name, content, mode=mode)["e_tag"])
            except (AlreadyExistsError, PreconditionError, FileNotFoundError):
                pass
        # Whose answer got lost is sent again by obstore, and then finds what it has written.
        found = self.get(name)
        return found.mark if found is not None and found.content == content else None

    def delete(self, name: str) -> None:
        with _reaching(self.url), suppress(FileNotFoundError):
            self.store.delete(name)

    def send(self, name: str, path: Path) -> None:
        part = max(PART_BYTES, path.stat().st_size // MOST_PARTS)
        with _reaching(self.url):
            try:
                self.bulk.put(name, path, chunk_size=part, max_concurrency=AT_ONCE)
            except FileNotFoundError as error:
                raise StoreError(f"{self.url}: {_refusal(str(error)) or _words(error)}") from error

    def fetch(self, name: str, path: Path, size: int) -> None:
        begin = path.stat().st_size if path.exists() else 0
        pieces = [(start, min(start + CHUNK_BYTES, size)) for start in range(begin, size, CHUNK_BYTES)]

        def piece(limits: tuple[int, int]) -> bytes:
            try:
                with _reaching(self.url):
                    return bytes(self.bulk.get_range(name, start=limits[0], end=limits[1]))
            except UnreachableError:
                # Where the object ends before that, S3 refuses the question; whoever checks the contents sees it.
                with _reaching(self.url):
                    is_there = int(self.store.head(name)["size"]) > limits[0]
                if is_there:
                    raise
                return b""

        with path.open("ab") as file, ThreadPoolExecutor(AT_ONCE // 2) as pool:
            for first in range(0, len(pieces), AT_ONCE // 2):
                # In order: a file that is cut off is whole up to its end.
                for content in pool.map(piece, pieces[first : first + AT_ONCE // 2]):
                    file.write(content)

    def size(self, name: str) -> int | None:
        with _reaching(self.url), suppress(FileNotFoundError):
            return int(self.store.head(name)["size"])
        return None

    def sweep(self, now: datetime) -> None:  # noqa: ARG002  nothing is old here
        # Parts of an object that never became one only the place itself can list: it has rules for them.
        return

    def listing(self, prefix: str) -> Iterator[Entry]:
        with _reaching(self.url):
            for page in self.asked.list(prefix):
                self.answered.set()
                for item in page:
                    changed: datetime = item["last_modified"]
                    # Azure leaves out the quotation marks here, and nowhere else.
                    mark = str(item["e_tag"])
                    mark = mark if mark.endswith('"') else f'"{mark}"'
                    yield Entry(str(item["path"]), int(item["size"]), mark, changed)


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    """What obstore raises, as an error that names the place; what is not there passes."""
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

    try:
        yield
    except (StoreError, FileNotFoundError):
        raise
    except (BaseError, OSError, ValueError) as error:
        if (refusal := _refusal(str(error))) is not None:
            raise StoreError(f"{url}: {refusal}") from error
        if isinstance(error, PermissionDeniedError | UnauthenticatedError):
            raise StoreError(f"{url}: {NOBODY} ({_words(error)})") from error
        raise UnreachableError(
            f"{url}: cannot be reached: {_words(error)}; `--store off` goes on without it"
        ) from error


def _refusal(said: str) -> str | None:
    """What a place that answers refuses, and what to do, going by the code in its answer."""
    code = CODE.search(said)
    words = next((words for marks, words in REFUSALS.items() if any(mark in said for mark in marks)), None)
    return None if words is None else f"{words}{f' ({code[1]})' if code else ''}"


def _words(error: Exception) -> str:
    """The sentence of an error, without what it prints for programmers."""
    said = str(error).partition("\n\nDebug source")[0].partition(": <?xml")[0]
    return without_credentials(" ".join(said.split()))[:300]
