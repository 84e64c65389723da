"""An index of the store: what listings show of every artifact, so that they need not read thousands of manifests.

<root>/index.json: one line with the hash of the rest, and a JSON document with the facts of each manifest beside the
`stat` of its file. It only saves time. Whether an artifact is there, and with all its bytes, is asked of the folders at
every look; a manifest whose `stat` is another one is read again; an index that is missing, damaged or made otherwise is
none. Whoever has read a manifest anew replaces the whole file, by a rename: of two that do so at once one wins, and
what the other had read is read again. Nothing is deleted, set aside, computed or found whole because of it.
"""

import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunemill.resources.errors import StoreError
from tunemill.resources.identity import SETTLED_NANOSECONDS
from tunemill.resources.store import Absent, Published, Store

INDEX_FILE = "index.json"
# What is kept of a manifest beside digest and sizes. The name says so, so an older index is none after a change here.
FACTS = ("pipeline", "node", "started", "seconds", "metrics")
FORMAT = f"tunemill-index-1 {' '.join(FACTS)}"

Place = tuple[str, str]
"""(stage, key) of an artifact."""


@dataclass(frozen=True)
class Summary:
    """What listings show of a whole artifact. `sizes` are the bytes of its files, `facts` what its run said of it.

    What is `elsewhere` is in the team's store alone.
    """

    digest: str
    sizes: Mapping[str, int]
    facts: Mapping[str, Any]
    elsewhere: bool = False


@dataclass(frozen=True)
class _Entry:
    """A summary, and the `stat` of the manifest that it was read from."""

    stamp: tuple[int, ...]
    summary: Summary


def summaries(store: Store, places: Iterable[Place]) -> dict[Place, Summary | Absent]:
    """What `store.lookup` says of each artifact, in short."""
    places = list(places)
    known = _read(store.root / INDEX_FILE)
    if store.team is not None:
        store.team.look_ahead([place for place in places if not store.folder(*place).is_dir()])
    new: dict[Place, _Entry] = {}
    found: dict[Place, Summary | Absent] = {}
    for place in places:
        folder = f"{store.root}/artifacts/{place[0]}/{place[1]}"
        stamp = _stamp(folder)
        entry = known.get(place)
        if entry is not None and entry.stamp == stamp and _is_whole(folder, entry.summary.sizes):
            found[place] = entry.summary
            continue
        # Before the manifest is read: what changes from here on has another stamp.
        is_settled = _is_settled(stamp)
        looked_up = store.lookup(*place)
        if isinstance(looked_up, Absent):
            found[place] = looked_up
            continue
        found[place] = summary = _summary(looked_up)
        if is_settled and not summary.elsewhere:
            new[place] = _Entry(stamp, summary)
    if new:
        _write(store, known | new)
    return found


def _summary(published: Published) -> Summary:
    manifest = published.manifest
    sizes = {name: entry["bytes"] for name, entry in manifest["files"].items()}
    return Summary(published.digest, sizes, {name: manifest.get(name) for name in FACTS}, published.elsewhere)


def _stamp(folder: str) -> tuple[int, ...]:
    """Moves with every change of a manifest's file; empty where there is none."""
    try:
        state = os.stat(f"{folder}/manifest.json")  # noqa: PTH116  thousands of them
    except (OSError, ValueError):
        return ()
    return (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


def _is_settled(stamp: tuple[int, ...]) -> bool:
    """Whether any change from now on moves the stamp: one within a tick of the file system's clock need not."""
    return bool(stamp) and time.time_ns() - max(stamp[-2:]) > SETTLED_NANOSECONDS


def _is_whole(folder: str, sizes: Mapping[str, int]) -> bool:
    try:
        return all(os.stat(f"{folder}/{name}").st_size == size for name, size in sizes.items())  # noqa: PTH116
    except OSError:
        return False


def _read(path: Path) -> dict[Place, _Entry]:
    """The entries of an index; none where it is missing or is not what `_write` wrote."""
    try:
        seal, _, text = path.read_bytes().partition(b"\n")
    except OSError:
        return {}
    if seal != _seal(text):
        return {}
    return {
        (stage, key): _Entry(tuple(stamp), Summary(digest, sizes, dict(zip(FACTS, facts, strict=True))))
        for stage, key, stamp, digest, sizes, facts in json.loads(text)
    }


def _write(store: Store, entries: Mapping[Place, _Entry]) -> None:
    """Replace the index, without artifacts that are gone. A store that cannot be written has none."""
    try:
        there = {(folder.parent.name, folder.name) for folder in store.artifacts()}
    except StoreError:
        return
    rows = [
        (*place, entry.stamp, entry.summary.digest, entry.summary.sizes, list(entry.summary.facts.values()))
        for place, entry in sorted(entries.items())
        if place in there
    ]
    text = json.dumps(rows, separators=(",", ":")).encode()
    beside = store.root / f".{INDEX_FILE}.{uuid.uuid4().hex}"
    try:
        beside.write_bytes(_seal(text) + b"\n" + text)
        beside.replace(store.root / INDEX_FILE)
    except OSError:
        with suppress(OSError):
            beside.unlink()


def _seal(text: bytes) -> bytes:
    return hashlib.sha256(FORMAT.encode() + b"\n" + text).hexdigest().encode()
