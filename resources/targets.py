"""Where a published model goes: a model repository of the Hub, or a folder of an object store or a file system.

What is sent is what is not there yet, as far as the target itself tells. The lineage goes last: a target that has the
lineage of these files has all of them. huggingface_hub and fsspec are imported where they are needed.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from tunemill.resources.errors import StoreError, UnreachableError
from tunemill.resources.hub_errors import is_unreachable, push_reason
from tunemill.resources.identity import StatCache, hash_file
from tunemill.resources.protocols import AS_PUBLISHED, CARD, LINEAGE_FILE, SIGNATURE_FILE
from tunemill.resources.shared_folder import is_repository, opened

# Of an artifact that is there already the card may have been edited by hand.
MAY_DIFFER = frozenset({CARD})


@dataclass(frozen=True)
class Content:
    """What is published: the files by name, their SHA-256, the artifact's digest, and the lineage that goes last."""

    title: str
    digest: str
    files: Mapping[str, Path]
    hashes: Mapping[str, str]
    lineage: bytes


@dataclass(frozen=True)
class Sent:
    """How the target has it: at which commit, where it has such, and how many files were sent for that."""

    where: str
    files: int


class Target(Protocol):
    """Raises StoreError, and UnreachableError where nothing answers."""

    @property
    def place(self) -> str:
        """What it is called."""

    def send(self, content: Content, known: StatCache) -> Sent:
        """Put the content there, as far as it is not there. `known` remembers what was sent, for the next try."""


def target(place: str, branch: str | None, private: bool | None, token: bool | None) -> Target:
    """The target behind a place without faults; a local one as a whole path."""
    return HubModel(place, branch, private, token) if is_repository(place) else TargetFolder(place)


@dataclass(frozen=True)
class HubModel:
    """A model repository of the Hub. It is made where there is none, and one commit holds a whole push."""

    place: str
    branch: str | None
    private: bool | None
    token: bool | None

    def send(self, content: Content, known: StatCache) -> Sent:
        del known  # The Hub itself knows what it has got.
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
        from huggingface_hub.errors import HTTPError
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
        try:
            api = HfApi(token=self.token)
            found = self._repository(api)
            there = {item.rfilename: item for item in found.siblings or []}
            lineage = self._lineage() if LINEAGE_FILE in there else b""
            before = _document(lineage)
            is_ours = before.get(AS_PUBLISHED, {}).get("digest") == content.digest
            lacking = [
                name
                for name, path in content.files.items()
                if not (
                    name in there
                    and (
                        (is_ours and name in MAY_DIFFER)
                        or _is_the_same(there[name], path, content.hashes[name])
                    )
                )
            ]
            if lineage == content.lineage and not lacking:
                return Sent(self._at(found.sha), 0)
            self._refuse_without_token()
            gone = set(before.get(AS_PUBLISHED, {}).get("files", ())) & there.keys() - content.files.keys()
            operations: list[Any] = [CommitOperationAdd(name, str(content.files[name])) for name in lacking]
            operations.append(CommitOperationAdd(LINEAGE_FILE, content.lineage))
            operations += [CommitOperationDelete(name) for name in sorted(gone)]
            made = api.create_commit(
                self.place,
                operations,
                commit_message=f"Publish {content.title} {content.digest[:12]}",
                revision=self.branch,
                parent_commit=found.sha,
            )
            return Sent(self._at(made.oid), len(lacking) + 1)
        except StoreError:
            raise
        except (OSError, ValueError, RuntimeError, HTTPError) as error:
            # The client says of an upload that broke off that it is a RuntimeError.
            kind = UnreachableError if is_unreachable(error) else StoreError
            raise kind(push_reason(error, self.place, "models")) from error

    def _repository(self, api: Any) -> Any:
        """What is on the branch, which is made where there is none, as is the repository."""
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        try:
            found = api.model_info(self.place, revision=self.branch, files_metadata=True)
        except RevisionNotFoundError:
            self._refuse_without_token()
            api.create_branch(self.place, branch=self.branch, exist_ok=True)
            found = api.model_info(self.place, revision=self.branch, files_metadata=True)
        except RepositoryNotFoundError:
            self._refuse_without_token()
            api.create_repo(self.place, private=self.private is not False, exist_ok=True)
            if self.branch is not None:
                api.create_branch(self.place, branch=self.branch, exist_ok=True)
            found = api.model_info(self.place, revision=self.branch, files_metadata=True)
        if self.private and not found.private:
            raise StoreError(
                f"{self.place}: is public on the Hub, and private: true was asked for. Make it private there, name "
                f"another one, or take private out"
            )
        return found

    def _lineage(self) -> bytes:
        """The lineage that is there."""
        from huggingface_hub import hf_hub_download

        with TemporaryDirectory() as scratch:
            path = hf_hub_download(
                self.place, LINEAGE_FILE, revision=self.branch, local_dir=scratch, token=self.token
            )
            return Path(path).read_bytes()

    def _at(self, commit: str | None) -> str:
        from huggingface_hub import constants

        return f"{constants.ENDPOINT}/{self.place} at commit {commit}"

    def _refuse_without_token(self) -> None:
        from huggingface_hub import get_token

        if get_token() is None:
            raise StoreError(
                f"{self.place}: nothing can be published on the Hub without a token that may write: hf auth login, or "
                f"set HF_TOKEN"
            )


@dataclass(frozen=True)
class TargetFolder:
    """A folder that fsspec reaches."""

    place: str

    def send(self, content: Content, known: StatCache) -> Sent:
        with opened(self.place, "written to") as (system, root):
            lineage = _read(system, f"{root}/{LINEAGE_FILE}")
            before = _document(lineage)
            is_ours = before.get(AS_PUBLISHED, {}).get("digest") == content.digest
            told = before[AS_PUBLISHED]["files"] if is_ours else {}
            lacking = [
                name
                for name, path in content.files.items()
                if not self._has(system, root, name, path, content.hashes[name], known, told)
                and not (is_ours and name in MAY_DIFFER and system.exists(f"{root}/{name}"))
            ]
            if lineage == content.lineage and not lacking:
                return Sent(self.place, 0)
            if before:
                # Until all is there again, nothing says that it is.
                system.rm_file(f"{root}/{LINEAGE_FILE}")
            else:
                self._refuse_others(system, root, lacking, known)
            for name in lacking:
                self._put(system, f"{root}/{name}", content.files[name])
                known.remember(_sent(self.place, name), _mark(system, f"{root}/{name}", content.hashes[name]))
            for name in sorted(set(before.get(AS_PUBLISHED, {}).get("files", ())) - content.files.keys()):
                if system.exists(f"{root}/{name}"):
                    system.rm_file(f"{root}/{name}")
            with TemporaryDirectory() as scratch:
                (Path(scratch) / LINEAGE_FILE).write_bytes(content.lineage)
                self._put(system, f"{root}/{LINEAGE_FILE}", Path(scratch) / LINEAGE_FILE)
            return Sent(self.place, len(lacking) + 1)

    def _has(
        self,
        system: Any,
        root: str,
        name: str,
        path: Path,
        sha256: str,
        known: StatCache,
        told: Mapping[str, str],
    ) -> bool:
        """Whether a file is there: by its bytes where they are on this machine, else by the mark of what was sent.

        What another machine has sent is known by its size beside a lineage that says all was sent, of which `told` are
        the files with their hashes.
        """
        there = f"{root}/{name}"
        try:
            size = system.info(there)["size"]
        except FileNotFoundError:
            return False
        if size != path.stat().st_size:
            return False
        if "://" not in self.place:
            return hash_file(Path(there)) == sha256
        if name == SIGNATURE_FILE:
            # It signs the lineage, which can say nothing of it, and is small.
            return _read(system, there) == path.read_bytes()
        remembered = known.recall(_sent(self.place, name))
        if remembered is None:
            return told.get(name) == sha256
        return remembered == _mark(system, there, sha256)

    def _refuse_others(self, system: Any, root: str, names: list[str], known: StatCache) -> None:
        """Raises StoreError for files in the way that no earlier try has left there."""
        others = [
            name
            for name in names
            if known.recall(_sent(self.place, name)) is None and system.exists(f"{root}/{name}")
        ]
        if others:
            raise StoreError(
                f"{self.place}: has {', '.join(others)} already, which Tunemill has not published there. Name an empty "
                f"folder, or take that away"
            )

    def _put(self, system: Any, there: str, path: Path) -> None:
        """A file on this machine appears whole or not at all; stores do so by themselves."""
        if "://" in self.place:
            system.put_file(str(path), there)
            return
        system.makedirs(there.rpartition("/")[0], exist_ok=True)
        system.put_file(str(path), f"{there}.partial")
        Path(f"{there}.partial").replace(there)


def _is_the_same(there: Any, path: Path, sha256: str) -> bool:
    """Whether the Hub has these bytes: a large file by its SHA-256, a small one by the hash that git gives it."""
    lfs = there.lfs
    if lfs is not None:
        return bool((lfs["sha256"] if isinstance(lfs, dict) else lfs.sha256) == sha256)
    if there.size != path.stat().st_size:
        return False
    content = path.read_bytes()
    git = hashlib.sha1(b"blob %d\x00" % len(content) + content, usedforsecurity=False).hexdigest()
    return bool(there.blob_id == git)


def _read(system: Any, there: str) -> bytes:
    """A small file; empty where there is none."""
    try:
        return bytes(system.cat_file(there))
    except FileNotFoundError:
        return b""


def _document(content: bytes) -> dict[str, Any]:
    """A lineage that was published; empty for what is none."""
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    published = found.get(AS_PUBLISHED) if isinstance(found, dict) else None
    names = published.get("files") if isinstance(published, dict) else None
    # A later push takes files of these names away: none may lead out of the folder.
    is_ours = isinstance(names, dict) and all(_is_inside(name) for name in names)
    return found if is_ours else {}


def _sent(place: str, name: str) -> str:
    return f"published {place}/{name}"


def _mark(system: Any, there: str, sha256: str) -> dict[str, str]:
    """What a store says of an object now, beside the contents that were sent."""
    return {"sha256": sha256, "mark": str(system.ukey(there))}


def _is_inside(name: str) -> bool:
    """Whether a name leads to a file of the folder that it is looked for in."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts
