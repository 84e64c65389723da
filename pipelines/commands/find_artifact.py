"""Which artifact a user means: by a node, a link, a folder, a file in it, or the first letters of its digest or key."""

import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunemill.pipelines.config.slices import ASSET_SCHEME
from tunemill.pipelines.graph.lineage import lineage_in, read_lineage
from tunemill.pipelines.graph.lineage_names import named_by_refs, nodes_by_key
from tunemill.resources.errors import StoreError
from tunemill.resources.protocols import LINEAGE_FILE
from tunemill.resources.refs import Ref
from tunemill.resources.store import Absent, Published, Store, names_an_artifact

SHORTEST_PREFIX = 6
SHOWN = 20
FEW = 5


@dataclass(frozen=True)
class Found:
    """A lineage in the names of one pipeline's nodes; `also` are other nodes with the artifact, by full name.

    `store` is where its artifacts are, None where that is not known.
    """

    lineage: dict[str, Any]
    store: Store | None
    also: tuple[str, ...] = ()


def find_lineage(what: str, store: Store) -> Found:
    """The lineage of what a user names. Raises StoreError that says what there is instead."""
    name = what.removeprefix(ASSET_SCHEME)
    if is_path(what):
        return _of_path(Path(what), store)
    pipeline, _, node = name.partition("/")
    if node and (ref := store.ref(pipeline, node)) is not None:
        return _of_ref(name, ref, store)
    places = {f"{pipeline}/{node}": ref for pipeline, node, ref in store.refs.all()}
    if (place := named_node(what, list(places))) is not None:
        return _of_ref(place, places[place], store)
    if is_digest(name):
        return _of_digest(name, store)
    raise StoreError(not_found(what, list(places), store))


def is_path(what: str) -> bool:
    """Whether what a user names is a file or folder, or a link to nowhere."""
    return not what.startswith(ASSET_SCHEME) and os.path.lexists(what)


def is_digest(name: str) -> bool:
    """Whether it may be the first letters of a digest or key."""
    return re.fullmatch(rf"[0-9a-f]{{{SHORTEST_PREFIX},64}}", name) is not None


def named_node(what: str, places: Sequence[str]) -> str | None:
    """The one of the `places` (`pipeline/node`) that a user names, with its pipeline or without; None if none is.

    Raises StoreError where several could be meant.
    """
    name = what.removeprefix(ASSET_SCHEME)
    if name in places:
        return name
    nodes = [place for place in places if place.partition("/")[2] == name]
    if len(nodes) > 1:
        raise StoreError(f"{what}: {len(nodes)} pipelines have such a node; say which: {some_of(nodes)}")
    if not nodes and (own := [place for place in places if place.partition("/")[0] == name]):
        raise StoreError(f"{what} is a pipeline; name one of its nodes: {some_of(own, most=SHOWN)}")
    return nodes[0] if nodes else None


def _of_ref(name: str, ref: Ref, store: Store) -> Found:
    folder = store.folder(ref.stage, ref.key)
    found = store.lookup(ref.stage, ref.key)
    try:
        data = found.data if isinstance(found, Published) else folder / "data"
        return _named(lineage_in(data / LINEAGE_FILE), store, name)
    except StoreError as error:
        reason = found.reason if isinstance(found, Absent) else str(error)
        gone = "it is gone from the store" if reason == "never computed" else reason
        raise StoreError(
            f"{name}: {gone} ({folder}); run its pipeline again, which computes it anew"
        ) from error


def _of_path(path: Path, store: Store) -> Found:
    """Of a folder with a lineage, a link to one, or anything inside of one."""
    if path.is_symlink() and not path.exists():
        raise StoreError(
            f"{path} is a link to {path.readlink()}, which is not there any more; run its pipeline again"
        )
    resolved = path.resolve()
    for folder in (resolved, *resolved.parents):
        if (folder / LINEAGE_FILE).is_file() or (folder / "data" / LINEAGE_FILE).is_file():
            lineage = read_lineage(folder)
            return _named(lineage, _store_around(folder) or _store_with(lineage, store))
        if (folder / "manifest.json").exists() or (folder / "artifacts").exists():
            break
    raise StoreError(_no_artifact(path))


def _no_artifact(path: Path) -> str:
    """What to name instead of a path that is in no artifact."""
    if path.is_dir():
        links = [item for item in sorted(path.iterdir()) if item.is_symlink() and item.exists()]
        if results := [str(link) for link in links if names_an_artifact(link.resolve())]:
            return f"{path} holds several results; name one: {some_of(results, most=SHOWN)}"
    if path.suffix in (".yml", ".yaml"):
        return f"{path} is no result; name a node of the pipeline, such as {path.stem}/merged"
    return f"{path}: there is no {LINEAGE_FILE} in it or around it; it was not made by Tunemill"


def _of_digest(prefix: str, store: Store) -> Found:
    """By the first letters of a digest or a key, as the tables print them."""
    there = [store.lookup(folder.parent.name, folder.name) for folder in store.artifacts()]
    found = [
        artifact
        for artifact in there
        if isinstance(artifact, Published)
        and (artifact.digest.startswith(prefix) or artifact.key.startswith(prefix))
    ]
    digests = sorted({artifact.digest for artifact in found})
    if len(digests) > 1:
        raise StoreError(
            f"{prefix} begins {len(digests)} digests or keys; say more of it: {some_of(digests)}"
        )
    if not found:
        raise StoreError(f"{prefix}: no artifact in {store.root} has such a digest or key")
    # Other inputs may have given the same bytes: rather what a node points to now.
    named = {ref.key for _, _, ref in store.refs.all()}
    artifact = min(found, key=lambda artifact: artifact.key not in named)
    return _named(read_lineage(artifact.folder), store)


def _named(lineage: dict[str, Any], store: Store | None, name: str | None = None) -> Found:
    """In the names of the pipeline asked about; else of the one that computed it, or that has it now."""
    if store is None:
        return Found(lineage, None)
    refs = store.refs.all()
    nodes = [f"{pipeline}/{node}" for pipeline, node, ref in refs if ref.key == lineage["key"]]
    recorded = lineage["node"]
    root = name or (recorded if recorded in nodes or not nodes else nodes[0])
    also = tuple(node for node in nodes if node != root)
    return Found(named_by_refs(nodes_by_key(refs), root, lineage), store, also)


def _store_around(folder: Path) -> Store | None:
    data = folder if folder.name == "data" else folder / "data"
    return Store(data.parents[3]) if names_an_artifact(data) else None


def _store_with(lineage: dict[str, Any], store: Store) -> Store | None:
    """The store, if the artifact whose copy is looked at is in it."""
    return store if store.folder(lineage["stage"], lineage["key"]).is_dir() else None


def not_found(what: str, places: Sequence[str], store: Store) -> str:
    """That nothing has this name, and which of the `places` may be meant."""
    name = what.removeprefix(ASSET_SCHEME)
    if not places:
        return (
            f"{what}: there is no such file or folder, and nothing has been computed in {store.root} yet; "
            f"--state DIR names another"
        )
    nodes = sorted({place.partition("/")[2] for place in places})
    close = difflib.get_close_matches(name, [*places, *nodes], n=1)
    close = close or difflib.get_close_matches(name.partition("/")[2], nodes, n=1)
    meant = [place for place in places if close and close[0] in (place, place.partition("/")[2])]
    hint = f"did you mean {some_of(meant, ' or ')}?" if meant else f"there are {some_of(places, most=SHOWN)}"
    return f"{what}: neither a file or folder nor a node in {store.root}; {hint}"


def some_of(names: Sequence[str], between: str = ", ", most: int = FEW) -> str:
    """The first `most` names, and how many more there are."""
    more = f"{between}{len(names) - most} more" if len(names) > most else ""
    return between.join(names[:most]) + more
