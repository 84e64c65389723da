"""What of the store nobody needs: nothing that a ref points to, nor what that was made from."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tunemill.resources.errors import StoreError
from tunemill.resources.identity import files_below
from tunemill.resources.lease import is_held
from tunemill.resources.store import Published, Store


@dataclass(frozen=True)
class Garbage:
    """A folder that can go, its size, and why nobody needs it."""

    folder: Path
    bytes: int
    why: str


def find_garbage(store: Store, checkpoints: bool = False) -> list[Garbage]:
    """Artifacts out of reach of every ref, leftovers of dead attempts, damaged or replaced artifacts.

    Attempts that can be resumed from a checkpoint are kept unless `checkpoints` says otherwise.
    """
    if damaged := store.refs.damaged():
        raise StoreError(
            f"{damaged[0]} is damaged, so what it points to is not known and nothing is deleted; run its pipeline, "
            f"which writes it again, or delete the file"
        )
    reached = set(_reached(store))
    unreached = [folder for folder in store.artifacts() if (folder.parent.name, folder.name) not in reached]
    leftovers = [
        folder
        for folder in sorted((store.root / "building").glob("*/*"))
        if folder.is_dir()
        and (checkpoints or not any((folder / "checkpoints").glob("*")))
        and not is_held(folder.with_name(f"{folder.name.split('.')[0]}.lease"))
    ]
    found = [_garbage(folder, "no node points to it") for folder in unreached]
    found += [_garbage(folder, "left by an attempt that ended") for folder in leftovers]
    found += [
        _garbage(folder, "set aside: damaged or replaced")
        for folder in sorted((store.root / "set_aside").glob("*/*"))
    ]
    return found


def _reached(store: Store) -> Iterator[tuple[str, str]]:
    """(stage, key) of what refs point to and, through the manifests, of what it was made from."""
    keys_by_digest: dict[tuple[str, str], tuple[str, str]] = {}
    manifests = {}
    for folder in store.artifacts():
        found = store.lookup(folder.parent.name, folder.name)
        if isinstance(found, Published):
            manifests[found.key] = found
            keys_by_digest[found.key, found.digest] = (found.stage, found.key)
    pending = [(ref.stage, ref.key) for _, _, ref in store.refs.all()]
    seen: set[tuple[str, str]] = set()
    while pending:
        item = pending.pop()
        if item in seen:
            continue
        seen.add(item)
        yield item
        if item[1] in manifests:
            for upstreams in manifests[item[1]].manifest["inputs"].values():
                for upstream in upstreams:
                    place = keys_by_digest.get((upstream["key"], upstream["digest"]))
                    if place:
                        pending.append(place)


def _garbage(folder: Path, why: str) -> Garbage:
    return Garbage(folder, sum(path.stat().st_size for path in files_below(folder)), why)
