"""Looking after a team's store: what there is, whether it is whole, and what nobody needs.

Refs and pins are each machine's own, so no machine knows what the others need. What is deleted is therefore old, by the
store's own clock, and nothing that is kept was made from it.
"""

import json
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from tunemill.resources.errors import StoreError
from tunemill.resources.object_types import Entry
from tunemill.resources.objects import Objects
from tunemill.resources.team_entry import TeamEntry, entry_from
from tunemill.resources.team_store import AT_ONCE, Place, files_place, manifest_name
from tunemill.resources.team_transfer import DamagedError, fetch_files

# A machine that is computing or sending has written its lease within this time.
LIVING = timedelta(hours=1)
# An upload that nothing names may still be going on.
TORN = timedelta(days=1)


@dataclass(frozen=True)
class TeamArtifact:
    """A manifest of a team's store: what it says (None if it is damaged), its mark, and when it was written."""

    place: Place
    entry: TeamEntry | None
    mark: str
    changed: datetime

    @property
    def bytes(self) -> int:
        files = {} if self.entry is None else self.entry.manifest["files"]
        return sum(int(entry["bytes"]) for entry in files.values())


@dataclass(frozen=True)
class TeamGarbage:
    """A folder of files or a manifest that can go, with its size in bytes, and why; `mark` of a manifest."""

    name: str
    bytes: int
    why: str
    mark: str | None = None


def team_artifacts(objects: Objects) -> list[TeamArtifact]:
    """Every artifact that there is, sorted. Raises UnreachableError."""

    def read(item: Entry) -> TeamArtifact | None:
        _, stage, key = item.name.removesuffix(".json").split("/")
        stored = objects.get(item.name)
        if stored is None:
            return None
        entry = entry_from(stored.content, stage, key)
        return TeamArtifact((stage, key), entry, stored.mark, stored.changed)

    items = [item for item in _deep(objects, "manifests/", 2) if item.name.count("/") == 2]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = [item for item in pool.map(read, items) if item is not None]
    return sorted(found, key=lambda item: item.place)


def verify_team(objects: Objects) -> Iterator[tuple[TeamArtifact, str | None]]:
    """Read every file of every artifact; yields each with what is wrong with it. A damaged one counts no more."""
    for item in team_artifacts(objects):
        wrong = "its manifest is damaged" if item.entry is None else _fault(objects, item.place, item.entry)
        if wrong is not None and item.entry is not None:
            note = json.dumps({"set_aside": wrong, "nonce": uuid.uuid4().hex}).encode()
            # Only what was looked at: somebody may have published it anew meanwhile.
            objects.replace(manifest_name(*item.place), note, item.mark)
        yield item, wrong


def _fault(objects: Objects, place: Place, entry: TeamEntry) -> str | None:
    """What is wrong with the files of an artifact; one of them is here at a time."""
    source = files_place(*place, entry.upload)
    for name, file in entry.manifest["files"].items():
        with TemporaryDirectory(prefix="tunemill-verify-") as scratch:
            try:
                fetch_files(objects, source, {name: file}, Path(scratch))
            except DamagedError as error:
                return str(error)
    return None


def team_garbage(objects: Objects, needed: Iterable[Place], days: float) -> list[TeamGarbage]:
    """Artifacts that were published more than `days` ago, and uploads that nothing names.

    Not what is `needed` here, what anything that is kept was made from, and what a machine is computing.
    """
    now = _clock_of(objects)
    artifacts = team_artifacts(objects)
    # What somebody else has put there, such as a folder's marker, lies less deep.
    leases = [item for item in _deep(objects, "leases/", 2) if now - item.changed < LIVING]
    living = {_place_of(item.name) for item in leases}
    kept = (
        {item.place for item in artifacts if now - item.changed < timedelta(days=days)} | living | {*needed}
    )
    kept |= _made_from(artifacts, kept)
    old = [item for item in artifacts if item.place not in kept]
    found = [
        TeamGarbage(manifest_name(*item.place), 0, f"published more than {days:g} days ago", item.mark)
        for item in old
    ]
    named = {
        files_place(*item.place, item.entry.upload)
        for item in artifacts
        if item.entry is not None and item.place in kept
    }
    gone = {files_place(*item.place, item.entry.upload) for item in old if item.entry is not None}
    uploads: dict[str, list[Entry]] = {}
    for entry in _deep(objects, "files/", 4):
        uploads.setdefault("/".join(entry.name.split("/")[:4]), []).append(entry)
    for upload, files in sorted(uploads.items()):
        is_young = now - max(file.changed for file in files) < TORN or _place_of(upload) in living
        if upload in named or (upload not in gone and is_young):
            continue
        why = "files of an artifact that goes" if upload in gone else "an upload that nothing names"
        found.append(TeamGarbage(upload, sum(file.bytes for file in files), why))
    return found


def prune_team(objects: Objects, needed: Iterable[Place], days: float) -> list[TeamGarbage]:
    """Delete what `team_garbage` finds: manifests first, so that nothing is found of which files are gone."""
    found = team_garbage(objects, needed, days)
    done: list[TeamGarbage] = []
    for item in found:
        if item.mark is not None:
            stored = objects.get(item.name)
            if stored is None or stored.mark != item.mark:
                raise StoreError(
                    f"{objects.url}: {item.name} was published anew meanwhile; nothing of it was deleted. Run again"
                )
            objects.delete(item.name)
        done.append(item)
    names = [file.name for item in found if item.mark is None for file in objects.listing(f"{item.name}/")]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(objects.delete, names))
    objects.sweep(_clock_of(objects))
    return done


def _made_from(artifacts: list[TeamArtifact], places: Iterable[Place]) -> set[Place]:
    """What artifacts were made from, as far as it is there."""
    entries = {item.place: item.entry for item in artifacts if item.entry is not None}
    place_of = {(entry.manifest["key"], entry.manifest["digest"]): place for place, entry in entries.items()}
    found: set[Place] = set()
    pending = list(places)
    while pending:
        entry = entries.get(pending.pop())
        inputs = {} if entry is None else entry.manifest.get("inputs", {})
        ups = [place_of.get((up["key"], up["digest"])) for ups in inputs.values() for up in ups]
        new = {up for up in ups if up is not None} - found
        found |= new
        pending += new
    return found


def _deep(objects: Objects, prefix: str, slashes: int) -> Iterator[Entry]:
    """What lies at least so deep."""
    return (item for item in objects.listing(prefix) if item.name.count("/") >= slashes)


def _place_of(name: str) -> Place:
    """Stage and key of a lease or of a folder of files."""
    parts = name.removesuffix(".json").split("/")
    return parts[1], parts[2]


def _clock_of(objects: Objects) -> datetime:
    """What time it is where the objects are."""
    name = f"clock/{uuid.uuid4().hex}"
    objects.create(name, name.encode())
    try:
        stored = objects.get(name)
    finally:
        objects.delete(name)
    if stored is None:
        raise StoreError(f"{objects.url}: what is written there cannot be read")
    return stored.changed
