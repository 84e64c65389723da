"""Making room on this machine: artifacts that the team has go from here, the oldest first.

They are found and brought again where they are needed. What a node points to stays, and so does what is pinned, what an
attempt reads, and what the team lacks.
"""

import uuid
from contextlib import suppress

from tunemill.resources.building import uses_of
from tunemill.resources.errors import StoreError
from tunemill.resources.folders import listed, move, remove_tree
from tunemill.resources.prune import Garbage, Place, named
from tunemill.resources.store import Published, Store


def evictable(store: Store, keep_bytes: int) -> list[Garbage]:
    """What would have to go so that the artifacts here take no more than `keep_bytes`, as far as it may go.

    Raises StoreError where there is no team's store, or where it cannot be reached.
    """
    if store.team is None:
        raise StoreError(
            "--keep-bytes: only what a team's store has can go from here; name one with TUNEMILL_STORE, or run a "
            "pipeline with pipeline.store first"
        )
    found = []
    for folder in store.artifacts():
        # Another process may be doing the same.
        with suppress(FileNotFoundError):
            item = store.lookup_here(folder.parent.name, folder.name)
            if isinstance(item, Published):
                size = sum(int(entry["bytes"]) for entry in item.manifest["files"].values())
                found.append((folder.stat().st_mtime_ns, size, item))
    too_much = sum(size for _, size, _ in found) - keep_bytes
    if too_much <= 0:
        return []
    needed = _needed(store)
    free = [one for one in sorted(found, key=lambda one: one[0]) if (one[2].stage, one[2].key) not in needed]
    store.team.look_ahead([(item.stage, item.key) for _, _, item in free])
    garbage = []
    for _, size, item in free:
        if too_much <= 0:
            break
        there = store.team.lookup(item.stage, item.key)
        if isinstance(there, Published) and there.digest == item.digest:
            garbage.append(Garbage(item.folder, size, "the team has it"))
            too_much -= size
    return garbage


def evict(store: Store, keep_bytes: int) -> list[Garbage]:
    """Take it away. The team's store, which may be slow, is asked before; while an artifact is moved, nobody may name
    one; deleting takes longer and happens afterwards."""
    trash = store.root / "trash" / uuid.uuid4().hex
    found = evictable(store, keep_bytes)
    gone: list[Garbage] = []
    with store.pruning():
        needed = _needed(store)
        trash.mkdir(parents=True)
        for item in found:
            if (item.folder.parent.name, item.folder.name) not in needed:
                with suppress(FileNotFoundError):
                    move(item.folder, trash / str(len(gone)))
                    gone.append(item)
    remove_tree(trash)
    return gone


def _needed(store: Store) -> set[Place]:
    found = named(store)
    for stage in listed(store.root / "building"):
        for place in (folder for folder in listed(stage) if folder.is_dir()):
            found |= {use for folder in listed(place) for use in uses_of(folder)}
    return found
