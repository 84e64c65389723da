"""Prepared rows are pushed to a folder that machines share, and pulled from it where they would be prepared again.

`artifacts/<stage>/<key>/{manifest.json,data/...}` is an artifact: what is pulled is what has the key that would be
computed, and counts only if its bytes have the digest that its manifest names. `rows/<stage>-<key>.parquet` are rows
for others to read. What merely copies a source, such as the snapshot of a dataset, is never pushed: it may hold columns
that nobody has prepared.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from tunemill.pipelines.graph.keys import upstream_of
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.pipelines.run.export import export_rows
from tunemill.pipelines.run.team import with_files
from tunemill.resources.building import OUTPUT_FILE, Building
from tunemill.resources.canonical import hash_document, hash_listing
from tunemill.resources.errors import StoreError, UnreachableError
from tunemill.resources.folders import read_json, remove_tree
from tunemill.resources.identity import hash_file
from tunemill.resources.protocols import LINEAGE_FILE
from tunemill.resources.shared_folder import TABLES, SharedFolder
from tunemill.resources.store import Published, Store
from tunemill.stages.artifacts import (
    EvaluationData,
    PreferenceData,
    Preferences,
    TokenizedDataset,
    TrainingData,
)

Say = Callable[[str], None]
# With the first of these what they are made of is pushed too.
WHOLE = (TrainingData, PreferenceData, EvaluationData)
PREPARED = (*WHOLE, TokenizedDataset, Preferences)
DATA = "data/"
# What a manifest says of the preparation, beside what addresses and proves the bytes.
NOT_FACTS = ("stage", "key", "digest", "files")
FACTS = frozenset({
    "artifact", "pipeline", "node", "config", "inputs", "sources", "host", "started", "seconds", "metrics", "tables",
    "plots",
})  # fmt: skip
# Two nodes of one run may be done at the same time, and a repository takes one commit after the other.
PUSHING = threading.Lock()


def push(pipeline: Pipeline, node: Node, published: Published, store: Store, say: Say) -> None:
    """Push a node's rows and the prepared rows that they are made of, where they are not there yet.

    Only whole training data and held-out rows begin a push. Raises StoreError where it cannot be done. Where the folder
    cannot be reached and this machine knows of an earlier push of the same rows, that is enough.
    """
    shared = pipeline.shared
    if shared is None or not issubclass(node.stage.output, WHOLE):
        return
    name, address = shared.place, _address(published.stage, published.key)
    known = f"{name} {address}"
    try:
        with PUSHING:
            if _digest_there(shared, published) != published.digest:
                made_of = {item.folder: item for item in _prepared_from(pipeline, node, published, store)}
                missing = [item for item in made_of.values() if _digest_there(shared, item) != item.digest]
                _send(shared, node, [*missing, with_files(store, published)])
                say(f"pushed to {name}: {address}")
    except UnreachableError as error:
        if (store.stat_cache.recall(known) or {}).get("digest") == published.digest:
            say(f"{error}; these rows were pushed before")
            return
        raise StoreError(_not_pushed(error)) from error
    except StoreError as error:
        raise StoreError(_not_pushed(error)) from error
    store.stat_cache.remember(known, {"digest": published.digest})


def pull(
    pipeline: Pipeline,
    node: Node,
    key_document: Mapping[str, Any],
    building: Building,
    store: Store,
    say: Say,
) -> Published | None:
    """Take what would be computed from where it was pushed to; None where it is not there, or is not what it was.

    `say` is told why something that is there is not taken.
    """
    shared = pipeline.shared
    if shared is None or not issubclass(node.stage.output, PREPARED):
        return None
    address = _address(building.stage, building.key)
    scratch = building.folder / "pulled"
    try:
        manifest = _manifest_there(shared, building.stage, building.key)
        if manifest is None:
            return None
        _fetch(shared, address, manifest, scratch)
    except StoreError as error:
        say(f"{error}; the rows are prepared here")
        return None
    except _DamagedError as error:
        say(
            f"{shared.place}: {address} is damaged ({error}), so the rows are prepared here. Delete it there, and the "
            f"next run pushes it again"
        )
        return None
    else:
        message = f"pulled from {shared.place}, with digest {manifest['digest'][:12]}: nothing was prepared"
        (building.logs / OUTPUT_FILE).write_text(f"{message}\n")
        published = _publish(manifest, key_document, scratch, building, store)
    finally:
        remove_tree(scratch)
    say(message)
    return published


class _DamagedError(Exception):
    """What is in the shared folder is not what was pushed."""


def _not_pushed(error: StoreError) -> str:
    return (
        f"the rows are prepared and kept, but could not be pushed: {error}. Run again to push them, or without "
        f"push_dataset_to_hub to go on without"
    )


def _address(stage: str, key: str) -> str:
    return f"artifacts/{stage}/{key}"


def _prepared_from(pipeline: Pipeline, node: Node, published: Published, store: Store) -> Iterator[Published]:
    """The prepared rows that an artifact of a node was made of, and that are still here; those of its inputs first."""
    keys = {edge["node"]: edge["key"] for edges in published.manifest["inputs"].values() for edge in edges}
    nodes = {item.name: item for item in pipeline.nodes}
    for name in upstream_of(node):
        if name in nodes and name in keys and issubclass(nodes[name].stage.output, PREPARED):
            found = store.lookup(nodes[name].stage.name, keys[name])
            if isinstance(found, Published):
                yield from _prepared_from(pipeline, nodes[name], found, store)
                yield with_files(store, found)


def _send(shared: SharedFolder, node: Node, artifacts: list[Published]) -> None:
    """Push artifacts, each with its manifest last, and a table of the rows of the last one, which is the node's."""
    files: list[tuple[str, Path | bytes]] = []
    last = artifacts[-1]
    with TemporaryDirectory() as scratch:
        if node.stage.export is not None:
            table = Path(scratch) / "rows.parquet"
            export_rows(last, node.stage.export, table)
            files.append((f"{TABLES}{last.stage}-{last.key[:12]}.parquet", table))
        for item in artifacts:
            manifest = _to_send(item)
            place = _address(item.stage, item.key)
            files += [(f"{place}/{name}", item.folder / name) for name in manifest["files"]]
            sealed = {**manifest, "sha256": hash_document(manifest)}
            files.append((f"{place}/manifest.json", json.dumps(sealed, indent=1).encode()))
        shared.add(files)


def _to_send(item: Published) -> dict[str, Any]:
    """The manifest without logs; the lineage, which differs by host and time, is in it and not beside the data."""
    files = {
        name: entry
        for name, entry in item.manifest["files"].items()
        if name.startswith(DATA) and name != f"{DATA}{LINEAGE_FILE}"
    }
    return {**item.manifest, "files": files, "lineage": read_json(item.data / LINEAGE_FILE)}


def _digest_there(shared: SharedFolder, item: Published) -> str | None:
    try:
        manifest = _manifest_there(shared, item.stage, item.key)
    except _DamagedError:
        return None
    return None if manifest is None else str(manifest["digest"])


def _manifest_there(shared: SharedFolder, stage: str, key: str) -> dict[str, Any] | None:
    """The manifest of a pushed artifact; None where there is none. Raises _DamagedError for what was not pushed so."""
    content = shared.read(f"{_address(stage, key)}/manifest.json")
    if content is None:
        return None
    try:
        manifest = json.loads(content)
        sealed = manifest.pop("sha256")
        is_whole = hash_document(manifest) == sealed and manifest.keys() >= {*NOT_FACTS, *FACTS, "lineage"}
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        is_whole = False
    if not is_whole or (manifest["stage"], manifest["key"]) != (stage, key):
        raise _DamagedError("manifest.json")
    if not all(_is_below_data(name) for name in manifest["files"]):
        raise _DamagedError("manifest.json names files outside of its folder")
    return dict(manifest)


def _is_below_data(name: str) -> bool:
    return (
        name.startswith(DATA) and ".." not in PurePosixPath(name).parts and str(PurePosixPath(name)) == name
    )


def _fetch(shared: SharedFolder, address: str, manifest: Mapping[str, Any], scratch: Path) -> None:
    """Copy the data of an artifact into a new folder. Raises _DamagedError where it has another digest."""
    targets = {name: scratch / name for name in manifest["files"]}
    for target in targets.values():
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shared.fetch({f"{address}/{name}": target for name, target in targets.items()})
    except UnreachableError:
        raise
    except StoreError as error:
        raise _DamagedError(str(error)) from error
    hashes = {name: hash_file(target) for name, target in targets.items()}
    for name, entry in manifest["files"].items():
        if hashes[name] != entry["sha256"]:
            raise _DamagedError(name)
    if hash_listing({name.removeprefix(DATA): value for name, value in hashes.items()}) != manifest["digest"]:
        raise _DamagedError("its digest is another one")


def _publish(
    manifest: Mapping[str, Any],
    key_document: Mapping[str, Any],
    scratch: Path,
    building: Building,
    store: Store,
) -> Published:
    (scratch / "data").rename(building.data)
    facts = {name: value for name, value in manifest.items() if name not in (*NOT_FACTS, "lineage")}
    ready = store.prepare(building, key_document, facts, lambda _: manifest["lineage"])
    return store.publish(building, ready)
