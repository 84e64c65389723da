"""A folder of the user's becomes an artifact: copied and hashed once, named as `asset://<name>`, nothing computed."""

import re
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tunemill.pipelines.graph.lineage import lineage_in
from tunemill.resources.canonical import SCHEMA, hash_document
from tunemill.resources.errors import StoreError
from tunemill.resources.identity import identify, source_files
from tunemill.resources.local import is_folder, shown
from tunemill.resources.protocols import ADOPTED, LINEAGE_FILE
from tunemill.resources.refs import Ref
from tunemill.resources.store import Published, Store
from tunemill.stages.artifacts import Adapter, Artifact, BaseModel, EvaluationData, TrainingData
from tunemill.stages.models.files import ADAPTER_FILES, INDEX_FILE, copy_file
from tunemill.stages.models.model_folder import fault_of_folder

PICKLED = (".bin", ".pt", ".pth", ".ckpt")


def adopt(folder: Path, name: str, store: Store) -> Published:
    """Copy a model, an adapter or prepared rows into the store, and point `adopted/<name>` to it.

    The same bytes are the same artifact: adopting them again copies nothing. Raises StoreError for what is none of
    these, and for a name that cannot be one.
    """
    if not re.fullmatch(r"\w{1,100}", name, re.ASCII):
        raise StoreError(f"--as {shown(name)}: a name has up to 100 letters, digits and underscores")
    if not is_folder(folder):
        raise StoreError(
            f"{shown(folder)}: no such folder; name that of a model, an adapter or prepared rows"
        )
    kind = kind_of(folder)
    identity = identify(folder, store.stat_cache)
    document = {
        "schema": SCHEMA,
        "stage": ADOPTED,
        "version": 1,
        "config": {"kind": kind.__name__},
        "sources": {"folder": [identity]},
        "inputs": {},
        "libraries": {},
    }
    key = hash_document(document)
    found = store.lookup(ADOPTED, key)
    if not isinstance(found, Published):
        found = _publish(folder, name, kind, document, key, store)
    with store.unpruned():
        store.refs.write(ADOPTED, name, Ref(found.stage, found.key, found.digest))
    return found


def kind_of(folder: Path) -> type[Artifact]:
    """What a folder holds, going by its files. Raises StoreError for what no pipeline can take."""
    if all((folder / name).is_file() for name in ADAPTER_FILES):
        return Adapter
    fault = fault_of_folder(folder)
    if fault is None:
        return BaseModel
    if (folder / INDEX_FILE).is_file():
        raise StoreError(fault)
    if (folder / "packs.arrow").is_file() and (folder / "rows.arrow").is_file():
        return TrainingData
    if (folder / "rows.arrow").is_file():
        return EvaluationData
    raise StoreError(
        f"{shown(folder)}: holds neither a model (config.json and *.safetensors) nor an adapter (adapter_config.json "
        f"and adapter_model.safetensors) nor prepared rows (rows.arrow); name the folder that does"
    )


def _publish(
    folder: Path, name: str, kind: type[Artifact], document: dict[str, Any], key: str, store: Store
) -> Published:
    started, at = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    full_name = f"{ADOPTED}/{name}"
    with store.building(ADOPTED, key, lambda _: None, node=full_name) as building:
        for path in source_files(folder):
            target = building.data / path.relative_to(folder)
            if path.name != LINEAGE_FILE and path.suffix not in PICKLED:
                target.parent.mkdir(parents=True, exist_ok=True)
                copy_file(path, target)
        identity = document["sources"]["folder"][0]
        if identify(folder, store.stat_cache) != identity:
            raise StoreError(f"{shown(folder)}: it changed while it was copied; nothing was kept. Try again")
        source = {"path": str(folder.resolve()), **identity}
        facts = {
            "artifact": [item.__name__ for item in kind.__mro__ if issubclass(item, Artifact)],
            "pipeline": ADOPTED,
            "node": name,
            "config": {},
            "inputs": {},
            "sources": {"folder": [source["path"]]},
            "host": socket.gethostname(),
            "started": at,
            "seconds": round(time.monotonic() - started, 3),
            "metrics": {},
            "tables": [],
            "plots": [],
        }
        lineage = {
            **{fact: facts[fact] for fact in ("config", "host", "started", "seconds", "metrics")},
            "node": full_name,
            "stage": ADOPTED,
            "artifact": kind.__name__,
            "version": 1,
            "key": key,
            "sources": {"folder": [source]},
            "libraries": {},
            **_origin(folder),
        }
        ready = store.prepare(building, document, facts, lambda digest: {**lineage, "digest": digest})
        return store.publish(building, ready)


def _origin(folder: Path) -> dict[str, Any]:
    """What an artifact of ours says of itself; of other folders nothing is known."""
    if not (folder / LINEAGE_FILE).is_file():
        return {"inputs": {}, "ancestors": {}}
    its = lineage_in(folder / LINEAGE_FILE)
    ancestors = its.pop("ancestors") | {its["key"]: its}
    edge = {"node": f"asset://{its['node']}", "key": its["key"], "digest": its.get("digest", "")}
    return {"inputs": {"folder": [edge]}, "ancestors": ancestors}
