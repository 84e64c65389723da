"""A folder that machines share: a dataset repository of the Hub, or a folder of an object store or a file system.

huggingface_hub and fsspec are imported where they are needed: pipelines that share nothing go without them.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from tunemill.resources.errors import StoreError, UnreachableError
from tunemill.resources.hub_errors import hub_reason, is_unreachable, push_reason
from tunemill.resources.protocols import CARD, PACKAGES, failures_of, protocol_of, without_credentials
from tunemill.resources.remote import file_system

# https://huggingface.co/docs/hub/repositories-getting-started: letters, digits, `-`, `_` and `.`, up to 96 in all.
REPOSITORY = re.compile(r"(?=.{3,96}$)[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
# What can be written to.
PROTOCOLS = tuple(protocol for protocol in PACKAGES if protocol not in ("http", "https"))
LOCAL = ("/", "./", "../", "~")
EMPTY_HEAD = "---\nconfigs: []\n---\n"
# Folder of the tables that others read, each as a configuration of the dataset.
TABLES = "rows/"


class SharedFolder(Protocol):
    """Names in it are paths with slashes. Each method raises StoreError, and UnreachableError where none answers."""

    @property
    def place(self) -> str:
        """What it is called."""

    def read(self, name: str) -> bytes | None:
        """The contents of a small file; None where there is none."""

    def fetch(self, files: Mapping[str, Path]) -> None:
        """Copy files to these places, whose folders are there."""

    def add(self, files: Sequence[tuple[str, Path | bytes]]) -> None:
        """Put files there, the last one last: whoever finds it finds the others. What has such a name is replaced."""


def is_repository(place: str) -> bool:
    """Whether a place is one of the Hub, not of a file system."""
    return "://" not in place and not place.startswith(LOCAL)


def fault_of_place(place: str) -> str | None:
    """Why nothing can be shared at a place, going by its name; None where something can."""
    if is_repository(place):
        if REPOSITORY.fullmatch(place) and not re.search(r"--|\.\.|[.-](/|$)|\.git$", place):
            return None
        return (
            "write owner/name of a dataset on the Hub (letters, digits, - _ .), a URL such as s3://bucket/folder, or a "
            "folder that begins with / ./ ../ or ~"
        )
    if "://" not in place:
        return None
    if protocol_of(place) not in PROTOCOLS:
        return f"{protocol_of(place)}:// cannot be written to; take one of {', '.join(PROTOCOLS)}"
    if without_credentials(place) != place:
        return "leave out who you are: passwords and keys belong into the environment"
    return None


@contextmanager
def opened(place: str, what: str) -> Iterator[tuple[Any, str]]:
    """The file system behind a place, and the folder in it. Raises what goes wrong inside as StoreError, which says
    that the place cannot be `what`, and as UnreachableError where nothing answers."""
    url = place if "://" in place else f"file://{place}"
    try:
        system, root = file_system(url, protocol_of(url))
        yield system, root.rstrip("/")
    except StoreError:
        raise
    except failures_of(protocol_of(url)) as error:
        answered = isinstance(error, FileNotFoundError | PermissionError | ValueError)
        kind = StoreError if answered else UnreachableError
        raise kind(f"{place}: cannot be {what}: {error}") from error


def shared_folder(place: str, token: bool | None) -> SharedFolder:
    """The folder behind a place without faults; a local one as a whole path. `token` is `hf_use_auth_token`."""
    return HubDataset(place, token) if is_repository(place) else RemoteFolder(place)


@dataclass(frozen=True)
class RemoteFolder:
    """A folder that fsspec reaches."""

    place: str

    def read(self, name: str) -> bytes | None:
        with opened(self.place, "read") as (files, root):
            try:
                return bytes(files.cat_file(f"{root}/{name}"))
            except FileNotFoundError:
                return None

    def fetch(self, files: Mapping[str, Path]) -> None:
        with opened(self.place, "read") as (system, root):
            for name, target in files.items():
                system.get_file(f"{root}/{name}", str(target))

    def add(self, files: Sequence[tuple[str, Path | bytes]]) -> None:
        with opened(self.place, "written to") as (system, root):
            for name, content in files:
                if "://" not in self.place:
                    # Object stores have no folders.
                    system.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
                if isinstance(content, bytes):
                    system.pipe_file(f"{root}/{name}", content)
                else:
                    system.put_file(str(content), f"{root}/{name}")


@dataclass(frozen=True)
class HubDataset:
    """A dataset repository of the Hub; `place` is `owner/name`. It is made, and private, where there is none."""

    place: str
    token: bool | None

    def read(self, name: str) -> bytes | None:
        from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

        with TemporaryDirectory() as scratch:
            try:
                return self._download(name, Path(scratch)).read_bytes()
            except (EntryNotFoundError, RepositoryNotFoundError) as error:
                if is_unreachable(error):
                    raise UnreachableError(hub_reason(error, "dataset", self.place, "main")) from error
                return None

    def fetch(self, files: Mapping[str, Path]) -> None:
        from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

        for name, target in files.items():
            with TemporaryDirectory(dir=target.parent, prefix=".") as scratch:
                try:
                    self._download(name, Path(scratch)).rename(target)
                except (EntryNotFoundError, RepositoryNotFoundError) as error:
                    kind = UnreachableError if is_unreachable(error) else StoreError
                    raise kind(f"{self.place}: {name} cannot be had: {type(error).__name__}") from error

    def add(self, files: Sequence[tuple[str, Path | bytes]]) -> None:
        from huggingface_hub import CommitOperationAdd, HfApi
        from huggingface_hub.errors import HTTPError, RepositoryNotFoundError
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
        api = HfApi(token=self.token)
        try:
            try:
                found = api.dataset_info(self.place)
            except RepositoryNotFoundError:
                self._refuse_without_token()
                api.create_repo(self.place, repo_type="dataset", private=True, exist_ok=True)
                found = api.dataset_info(self.place)
            if not found.private:
                raise StoreError(
                    f"{self.place}: is public, and everybody could read the rows; make it private on the Hub, or name "
                    f"another one"
                )
            self._refuse_without_token()
            names = {item.rfilename for item in found.siblings or []}
            card = self._card(names, [name for name, _ in files])
            operations = [
                CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
                for name, content in [*files, (CARD, card.encode())]
            ]
            api.create_commit(
                self.place, operations, commit_message=f"Prepared rows: {files[-1][0]}", repo_type="dataset"
            )
        except StoreError:
            raise
        except (OSError, ValueError, HTTPError) as error:
            kind = UnreachableError if is_unreachable(error) else StoreError
            raise kind(push_reason(error, self.place)) from error

    def _card(self, there: set[str], added: Sequence[str]) -> str:
        """The card with a configuration for each table, the one that is added as the default. Its text stays."""
        from huggingface_hub import DatasetCard

        text = (self.read(CARD) or b"").decode(errors="replace") if CARD in there else ""
        card = DatasetCard(text if text.startswith("---") else f"{EMPTY_HEAD}{text}")
        tables = sorted({name for name in (*there, *added) if name.startswith(TABLES)})
        before = card.data.to_dict().get("configs") or []
        shown = [_files_of(item) for item in before if item.get("default")]
        newest = next((name for name in added if name.startswith(TABLES)), shown[0] if shown else None)
        configs = [item for item in before if not _files_of(item).startswith(TABLES)]
        configs += [{"config_name": Path(name).stem, "data_files": name} for name in tables]
        for item in configs:
            item.pop("default", None)
            if _files_of(item) == newest:
                item["default"] = True
        card.data.configs = configs
        return str(card)

    def _refuse_without_token(self) -> None:
        from huggingface_hub import get_token

        if get_token() is None:
            raise StoreError(
                f"{self.place}: nothing can be pushed to the Hub without a token that may write: hf auth login, or set "
                f"HF_TOKEN"
            )

    def _download(self, name: str, scratch: Path) -> Path:
        """A file as it is on the Hub now. Raises what is not there as huggingface_hub does."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HTTPError, RepositoryNotFoundError
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
        try:
            found = hf_hub_download(
                self.place, name, repo_type="dataset", local_dir=scratch, token=self.token
            )
        except (EntryNotFoundError, RepositoryNotFoundError):
            raise
        except (OSError, ValueError, HTTPError) as error:
            kind = UnreachableError if is_unreachable(error) else StoreError
            raise kind(hub_reason(error, "dataset", self.place, "main")) from error
        return Path(found)


def _files_of(configuration: Mapping[str, Any]) -> str:
    return str(configuration.get("data_files", ""))
