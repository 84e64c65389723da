"""A repository of the Hub at one commit, and its files one by one, each checked against what the Hub says of it."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import HTTPError, XetDownloadError
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import build_hf_headers, tqdm

from tunemill.resources.hub_errors import hub_reason
from tunemill.resources.protocols import HUB_MODELS
from tunemill.stages.errors import SourceError

# Of a file that is being fetched, so many bytes between two reports.
REPORTED_BYTES = 32 << 20
# Files that are not whole yet.
PARTIAL = ".partial"


@dataclass(frozen=True)
class Repository:
    """A repository at one commit: its files by name, as the Hub describes them."""

    name: str
    commit: str
    files: dict[str, RepoSibling]
    token: bool | None


class Progress:
    """Counts the bytes that are there, and says now and then how many."""

    def __init__(self, say: Callable[[int], None]) -> None:
        self.say = say
        self.finished = self.running = self.reported = 0

    def add(self, count: int) -> None:
        """More bytes of the file that is being fetched; fewer where it begins anew."""
        self.running += count
        if abs(self.finished + self.running - self.reported) >= REPORTED_BYTES:
            self._say()

    def finish(self, size: int) -> None:
        """A file is there."""
        self.finished, self.running = self.finished + size, 0
        self._say()

    def bar(self) -> type[tqdm]:
        """What the library counts with: shows nothing itself."""
        progress = self

        class Bar(tqdm):  # type: ignore[misc]
            def __init__(self, *arguments: Any, **settings: Any) -> None:
                super().__init__(*arguments, **{**settings, "disable": True})
                progress.running = int(settings.get("initial") or 0)

            def update(self, n: float | None = 1) -> bool | None:
                progress.add(int(n or 0))
                return None

        return Bar

    def _say(self) -> None:
        self.reported = self.finished + self.running
        self.say(self.reported)


def look(repository: str, revision: str | None, token: bool | None) -> Repository:
    """The repository `hf://models/<name>` at the commit behind a revision. Raises SourceError where it is not there."""
    name, wanted = repository.removeprefix(HUB_MODELS), revision or "main"
    with refused(name, wanted):
        info = HfApi(token=token).model_info(name, revision=wanted, files_metadata=True)
    files = {item.rfilename: item for item in info.siblings or [] if _lies_inside(item.rfilename)}
    return Repository(name, str(info.sha), files, token)


def _lies_inside(name: str) -> bool:
    return name.isprintable() and not {"", ".", ".."} & set(name.split("/"))


def fetch(found: Repository, name: str, folder: Path, progress: Progress) -> str:
    """Fetch one file, or the rest of it. Returns its SHA-256. Raises SourceError where it is not what the Hub says."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in (2, 1, 0):
        # The first look is at what an interrupted attempt has left.
        if path.is_file() and (digest := checked(path, found.files[name])) is not None:
            return digest
        path.unlink(missing_ok=True)
        if left:
            with refused(found.name, found.commit):
                bring(found, name, folder, progress)
    raise SourceError(
        f"{found.name}: {name} came twice with other contents than the Hub says it has at {found.commit}; something "
        f"on the way changes it, such as a mirror (HF_ENDPOINT) or a proxy"
    )


def bring(found: Repository, name: str, folder: Path, progress: Progress) -> None:
    """Bring a file here, or what is missing of it.

    `hf_hub_download` begins a file anew in every process, so it is asked only where it is many times faster: for
    files in Xet, where its package is installed.
    """
    url = hf_hub_url(found.name, name, revision=found.commit)
    said = get_hf_file_metadata(url, token=found.token, retry_on_errors=True)
    has_xet = find_spec("hf_xet") is not None and not constants.HF_HUB_DISABLE_XET
    if said.xet_file_data is not None and has_xet:
        hf_hub_download(
            found.name,
            name,
            revision=found.commit,
            local_dir=folder,
            token=found.token,
            tqdm_class=progress.bar(),
        )
        return
    partial = folder / PARTIAL / hashlib.sha256(f"{name} {said.etag}".encode()).hexdigest()
    partial.parent.mkdir(exist_ok=True)
    if partial.exists() and said.size is not None and partial.stat().st_size > said.size:
        partial.unlink()
    headers = build_hf_headers(token=found.token)
    with partial.open("ab") as file:
        http_get(
            url,
            file,
            resume_size=file.tell(),
            headers=headers,
            expected_size=said.size,
            tqdm_class=progress.bar(),
        )
    partial.replace(folder / name)


def checked(path: Path, said: RepoSibling) -> str | None:
    """The SHA-256 of a file; None where its size or hash is not what is said of it."""
    size = path.stat().st_size
    sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\x00" % size, usedforsecurity=False)
    large = said.lfs is not None
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha256.update(block)
            if not large:
                git.update(block)
    if said.size is not None and size != said.size:
        return None
    if said.lfs is not None:
        return sha256.hexdigest() if said.lfs.sha256 == sha256.hexdigest() else None
    return sha256.hexdigest() if said.blob_id in (None, git.hexdigest()) else None


@contextmanager
def refused(name: str, revision: str) -> Iterator[None]:
    """What goes wrong with the Hub and on the way there as SourceError; what does with the disk passes."""
    try:
        yield
    except (OSError, HTTPError, ValueError, XetDownloadError) as error:
        # Errors of the disk have a number, those of the library none.
        if (
            isinstance(error, OSError)
            and error.errno
            and not isinstance(error, ConnectionError | TimeoutError)
        ):
            raise
        raise SourceError(hub_reason(error, "model", name, revision)) from None
