"""What of the store nobody needs: what no ref, pin or computation names, and nothing of these was made from."""

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tunemill.resources.building import has_checkpoints, lease_of, uses_of
from tunemill.resources.errors import StoreError
from tunemill.resources.folders import listed, move, remove_tree, while_nobody_works
from tunemill.resources.identity import files_below
from tunemill.resources.lease import is_held, while_free
from tunemill.resources.store import Published, Store

# A transfer that was cut off goes on from what has arrived.
TRANSFER_SECONDS = 86_400.0

Place = tuple[str, str]
"""(stage, key) of an artifact."""


@dataclass(frozen=True)
class Garbage:
    """A folder that can go, its size, and why nobody needs it; of an attempt, the lease that must be free. What is
    `arriving` must not be worked on."""

    folder: Path
    bytes: int
    why: str
    lease: Path | None = None
    arriving: bool = False


def prune(store: Store, checkpoints: bool = False, kept: bool = False) -> list[Garbage]:
    """Delete what `find_garbage` finds, and with `kept` what stages keep for themselves.

    The store is looked at, and what can go is moved out of it, while nobody may name an artifact; deleting takes
    longer and happens afterwards.
    """
    known = _manifests(store, {})
    with store.pruning():
        found = find_garbage(store, checkpoints, known)
        found += [item for item in kept_by_stages(store) if not is_in_use(store, item)] if kept else []
        trash = store.root / "trash" / uuid.uuid4().hex
        listed(trash.parent)
        trash.mkdir(parents=True)
        gone = [item for number, item in enumerate(found) if _move_away(item, trash / str(number))]
    for folder in listed(trash.parent):
        remove_tree(folder)
    return gone


def _move_away(item: Garbage, to: Path) -> bool:
    """Move garbage; False where somebody has begun to compute there meanwhile, or has ended and left nothing."""
    guard: AbstractContextManager[bool] = nullcontext(True)
    if item.lease is not None:
        guard = while_free(item.lease)
    elif item.arriving:
        guard = while_nobody_works(item.folder)
    with guard as is_free:
        if is_free and (not item.arriving or _is_old(item.folder)):
            with suppress(FileNotFoundError):
                move(item.folder, to)
                return True
    return False


def find_garbage(
    store: Store, checkpoints: bool = False, known: dict[Place, Published] | None = None
) -> list[Garbage]:
    """Artifacts out of reach of every ref and computation, leftovers of dead attempts, damaged or replaced artifacts.

    Attempts that can be resumed from a checkpoint are kept unless `checkpoints` says otherwise. `known` are artifacts
    that were looked at already. Raises StoreError where what is needed cannot be told.
    """
    # Artifacts before refs: what is published in between is not in the list, so it is not deleted.
    artifacts = store.artifacts()
    attempts = [folder for stage in listed(store.root / "building") for folder in _keys(stage)]
    kept = [
        folder for folder in attempts if is_held(lease_of(folder)) or (not checkpoints and _resumable(folder))
    ]
    reached = set(_reached(store, artifacts, kept, _manifests(store, known or {})))
    unreached = [folder for folder in artifacts if (folder.parent.name, folder.name) not in reached]
    found = [_garbage(folder, "no node points to it") for folder in unreached]
    found += [
        _garbage(folder, "left by an attempt that ended", lease_of(folder))
        for folder in attempts
        if folder not in kept
    ]
    arriving = [folder for stage in listed(store.root / "arriving") for folder in listed(stage)]
    found += [
        replace(_garbage(folder, "left by a transfer that ended"), arriving=True)
        for folder in arriving
        if folder.is_dir() and _is_old(folder)
    ]
    aside = [folder for stage in listed(store.root / "set_aside") for folder in listed(stage)]
    found += [_garbage(folder, "set aside: damaged or replaced") for folder in aside]
    return found


def _is_old(folder: Path) -> bool:
    """Whether nothing has been written into a folder for so long that nobody writes there."""
    for parent, _, names in os.walk(folder):
        for path in (Path(parent), *(Path(parent) / name for name in names)):
            try:
                written = path.lstat().st_mtime
            except FileNotFoundError:
                # Somebody is at work there.
                return False
            if time.time() - written <= TRANSFER_SECONDS:
                return False
    return True


def kept_by_stages(store: Store) -> list[Garbage]:
    """What each stage keeps for itself beyond its artifacts, such as the answers of a judge."""
    return [_garbage(folder, f"kept by {folder.name}") for folder in listed(store.root / "kept")]


def is_in_use(store: Store, kept: Garbage) -> bool:
    """Whether the stage that keeps it is running: it may be writing there."""
    return any(is_held(lease_of(place)) for place in _keys(store.root / "building" / kept.folder.name))


def _keys(stage: Path) -> list[Path]:
    """The folders of a stage's attempts; leases lie beside them."""
    return [folder for folder in listed(stage) if folder.is_dir() and folder.suffix != ".lease"]


def _resumable(place: Path) -> bool:
    return any(has_checkpoints(folder) for folder in listed(place) if folder.is_dir())


def named(store: Store) -> set[Place]:
    """What refs and pins name. Raises StoreError where that is not known, which is not that nothing is."""
    if damaged := store.refs.damaged():
        raise StoreError(
            f"{damaged[0]} is damaged, so what it points to is not known and nothing is deleted; run its pipeline, "
            f"which writes it again, or delete the file"
        )
    found = {(ref.stage, ref.key) for _, _, ref in store.refs.all()}
    return found | {(pin.stage, pin.key) for pin in store.pins.all().values()}


def _roots(store: Store, artifacts: list[Path], attempts: list[Path]) -> Iterator[Place]:
    """What refs and pins name and attempts read."""
    found = named(store)
    if artifacts and not store.refs.all():
        raise StoreError(
            f"{store.refs.root}: there is no ref, so every artifact would be deleted and none is. If that is what you "
            f"want, delete {store.root / 'artifacts'} yourself; otherwise run the pipelines, which set their refs again"
        )
    yield from found
    for place in attempts:
        yield from (use for folder in listed(place) for use in uses_of(folder))


def _reached(
    store: Store, artifacts: list[Path], attempts: list[Path], manifests: dict[Place, Published]
) -> Iterator[Place]:
    """The roots and, through the manifests, what they were made from."""
    place_of = {(item.key, item.digest): place for place, item in manifests.items()}
    pending = list(_roots(store, artifacts, attempts))
    seen: set[Place] = set()
    while pending:
        place = pending.pop()
        if place in seen:
            continue
        seen.add(place)
        yield place
        if place in manifests:
            used = [up for ups in manifests[place].manifest["inputs"].values() for up in ups]
            pending += [
                place_of[up["key"], up["digest"]] for up in used if (up["key"], up["digest"]) in place_of
            ]


def _manifests(store: Store, known: dict[Place, Published]) -> dict[Place, Published]:
    """Every whole artifact here, and what nodes point to elsewhere; one that is known never changes."""
    found = dict(known)
    places = [(folder.parent.name, folder.name) for folder in store.artifacts()]
    if store.team is not None:
        # What a node points to may be in the team's store alone, and made from what is here.
        places += [(ref.stage, ref.key) for _, _, ref in store.refs.all()]
    for place in places:
        if place not in found and isinstance(artifact := store.lookup(*place), Published):
            found[place] = artifact
    return found


def _garbage(folder: Path, why: str, lease: Path | None = None) -> Garbage:
    size = 0
    for path in files_below(folder):
        with suppress(FileNotFoundError):
            size += path.lstat().st_size
    return Garbage(folder, size, why, lease)
