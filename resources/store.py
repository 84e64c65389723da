"""The store: artifacts by stage and key, published once and whole, never changed afterwards.

<root>/artifacts/<stage>/<key>/{manifest.json,key.json,data/,logs/}   published
<root>/building/<stage>/<key>/{data/,logs/,checkpoints/}              in progress; survives a crash
<root>/set_aside/<stage>/<key>.<time>/                                damaged or replaced, kept for a look
<root>/refs/<pipeline>/<node>.json                                    see refs.py
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunemill.resources.canonical import hash_document, hash_listing
from tunemill.resources.errors import StoreError
from tunemill.resources.identity import StatCache, files_below, hash_file
from tunemill.resources.lease import lease
from tunemill.resources.protocols import LINEAGE_FILE
from tunemill.resources.refs import Refs

# Provenance travels inside the data folder but is not part of the result: it names times and hosts.
UNHASHED = frozenset({LINEAGE_FILE})
# What every key document holds; a damaged one explains nothing.
KEY_PARTS = frozenset({"schema", "stage", "version", "config", "sources", "inputs", "libraries"})


@dataclass(frozen=True)
class Published:
    """A whole artifact of the store."""

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def stage(self) -> str:
        return str(self.manifest["stage"])

    @property
    def key(self) -> str:
        return str(self.manifest["key"])

    @property
    def digest(self) -> str:
        return str(self.manifest["digest"])


@dataclass(frozen=True)
class Absent:
    """No usable artifact, and why: `damage` names the files at fault if there was one."""

    reason: str
    damage: tuple[str, ...] = ()


@dataclass(frozen=True)
class Building:
    """The folders of a computation in progress."""

    data: Path
    checkpoints: Path
    logs: Path


class Store:
    """A folder of artifacts. Any number of processes may share it."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.refs = Refs(self.root / "refs")
        self.stat_cache = StatCache(self.root / "stat_cache.sqlite")

    def folder(self, stage: str, key: str) -> Path:
        return self.root / "artifacts" / stage / key

    def lookup(self, stage: str, key: str) -> Published | Absent:
        """A hit needs its bytes: every file of the manifest is there with its size."""
        folder = self.folder(stage, key)
        if not (folder / "manifest.json").exists():
            return Absent("never computed")
        manifest = _read_manifest(folder)
        if manifest is None:
            return Absent("its manifest is damaged", ("manifest.json",))
        damage = tuple(_wrong_sizes(folder, manifest["files"]))
        if damage:
            return Absent(f"a stored file is missing or cut short: {', '.join(damage)}", damage)
        return Published(folder, manifest)

    def key_document(self, stage: str, key: str) -> dict[str, Any] | None:
        """The document behind a key, if its artifact is (or was) here."""
        try:
            document = json.loads((self.folder(stage, key) / "key.json").read_text())
        except (OSError, ValueError):
            return None
        is_whole = isinstance(document, dict) and set(document) >= KEY_PARTS
        return document if is_whole else None

    @contextmanager
    def building(self, stage: str, key: str, say: Callable[[str], None]) -> Iterator[Building]:
        """Hold the right to compute a key. Leftover data is cleared, leftover checkpoints stay."""
        folder = self.root / "building" / stage / key
        with lease(folder.with_name(f"{key}.lease"), say):
            shutil.rmtree(folder / "data", ignore_errors=True)
            parts = [folder / name for name in ("data", "checkpoints", "logs")]
            for part in parts:
                part.mkdir(parents=True, exist_ok=True)
            yield Building(*parts)
            if folder.exists() and not any(path.is_file() for path in folder.rglob("*")):
                # Somebody else computed it, so there is nothing here to go on from.
                shutil.rmtree(folder)

    def publish(
        self,
        stage: str,
        key: str,
        key_document: Mapping[str, Any],
        facts: Mapping[str, Any],
        lineage: Callable[[str], Mapping[str, Any]],
    ) -> Published:
        """Turn what was built into an artifact: hash, fsync, one rename.

        `facts` go into the manifest; `lineage`, given the digest, makes the file that travels with the data.
        """
        building = self.root / "building" / stage / key
        files = _inventory(building)
        digest = hash_listing(
            {
                name.removeprefix("data/"): entry["sha256"]
                for name, entry in files.items()
                if name.startswith("data/")
            }
        )
        (building / "data" / LINEAGE_FILE).write_text(json.dumps(lineage(digest), indent=1))
        files |= _inventory(building, only=UNHASHED)
        manifest = {"stage": stage, "key": key, "digest": digest, "files": files, **facts}
        ready = self.root / "building" / stage / f"{key}.ready"
        shutil.rmtree(ready, ignore_errors=True)
        ready.mkdir()
        (ready / "key.json").write_text(json.dumps(key_document, indent=1))
        for part in ("data", "logs"):
            (building / part).rename(ready / part)
        manifest = json.loads(json.dumps(manifest))
        sealed = {**manifest, "sha256": hash_document(manifest)}
        (ready / "manifest.json").write_text(json.dumps(sealed, indent=1))
        _make_durable(ready)
        final = self.folder(stage, key)
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists():
            self.set_aside(stage, key)
        ready.rename(final)
        _fsync(final.parent)
        shutil.rmtree(building, ignore_errors=True)
        return Published(final, manifest)

    def set_aside(self, stage: str, key: str) -> Path:
        """Move an artifact out of the way, so that it is never hit again; return where it is now."""
        parent = self.root / "set_aside" / stage
        parent.mkdir(parents=True, exist_ok=True)
        aside = parent / f"{key}.{time.time_ns()}"
        self.folder(stage, key).rename(aside)
        return aside

    def verify(self, artifact: Path) -> list[str]:
        """Hash every file of an artifact again; return what differs, one line per file."""
        manifest = _read_manifest(artifact)
        if manifest is None:
            return [f"{artifact / 'manifest.json'}: missing or damaged"]
        wrong = [
            f"{artifact / name}: missing or cut short" for name in _wrong_sizes(artifact, manifest["files"])
        ]
        for name, entry in manifest["files"].items():
            path = artifact / name
            if (
                path.is_file()
                and path.stat().st_size == entry["bytes"]
                and hash_file(path) != entry["sha256"]
            ):
                wrong.append(f"{path}: its contents changed")
        return wrong

    def artifacts(self) -> list[Path]:
        """The folder of every artifact, sorted."""
        return sorted(path for path in (self.root / "artifacts").glob("*/*") if path.is_dir())


def open_store(root: Path) -> Store:
    """Open the store at a folder; raises StoreError if it cannot be written."""
    path = root.expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"{path}: the state folder cannot be made ({error.strerror}); give another with --state"
        ) from error
    return Store(path)


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of an artifact; None where it is missing or is not what `publish` wrote."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        sealed = manifest.pop("sha256")
        return manifest if hash_document(manifest) == sealed else None
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return None


def _inventory(building: Path, only: frozenset[str] = frozenset()) -> dict[str, dict[str, Any]]:
    found = {}
    for part in ("data", "logs"):
        for path in files_below(building / part):
            name = path.relative_to(building).as_posix()
            if (name.removeprefix("data/") in UNHASHED) == bool(only):
                found[name] = {"bytes": path.stat().st_size, "sha256": hash_file(path)}
    return found


def _wrong_sizes(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, entry in files.items():
        try:
            if (folder / name).stat().st_size == entry["bytes"]:
                continue
        except FileNotFoundError:
            pass
        yield name


def _make_durable(folder: Path) -> None:
    """Write everything below a folder through to the disk and take away the right to change it."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(parent) / name
            _fsync(path)
            path.chmod(path.stat().st_mode & ~0o222)
        _fsync(Path(parent))


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
