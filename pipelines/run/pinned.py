"""`tunemill pin`: a node keeps an artifact, whatever its YAML asks for, until `tunemill unpin`."""

import re
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime

from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.nodes import Node
from tunemill.pipelines.graph.pinned import whole
from tunemill.pipelines.graph.sweep import load_named
from tunemill.resources.canonical import SHORT
from tunemill.resources.errors import StoreError
from tunemill.resources.origins import read_grid, read_origin
from tunemill.resources.pins import Pin
from tunemill.resources.protocols import ADOPTED
from tunemill.resources.store import Absent, Published, Store
from tunemill.stages.choices import nearest

SHORTEST_PREFIX = 6
LONGEST_REASON = 500


def pin(
    name: str, store: Store, artifact: str | None = None, reason: str | None = None
) -> tuple[Pin, Published]:
    """Pin `pipeline/node` to what it has now, or to the `artifact` of its stage whose key or digest begins so.

    Pinning it to the same artifact again keeps since when, and the reason where no other is given. Raises StoreError
    for what cannot be kept.
    """
    pipeline, node = parts_of(name, store)
    why = readable(reason or "")
    # Looked at first: where there is nothing to keep, nothing is written.
    found = _of_now(name, store) if artifact is None else _of_stage(name, artifact, store)
    with store.unpruned():
        new = Pin(found.stage, found.key, found.digest, datetime.now(UTC).isoformat(timespec="seconds"), why)
        before = store.pins.of_file(pipeline, node)
        if before is not None and before.ref == new.ref:
            new = Pin(new.stage, new.key, new.digest, before.since, before.reason if reason is None else why)
        whole(name, new, store)
        store.pins.write(pipeline, node, new)
        store.refs.write(pipeline, node, new.ref)
    return new, found


def unpin(name: str, store: Store) -> Pin | None:
    """Take the pin of `pipeline/node` away; returns it, None for a damaged one. Raises StoreError if there is none."""
    pipeline, _, node = name.partition("/")
    names = store.pins.names()
    if name not in names:
        near = nearest(name, names)
        hint = f"did you mean {near[0]}?" if near else f"what is pinned: {', '.join(names) or 'nothing'}"
        raise StoreError(f"{name}: it is not pinned in {store.root}; {hint}")
    before = store.pins.of_file(pipeline, node)
    store.pins.remove(pipeline, node)
    return before


def parts_of(name: str, store: Store) -> tuple[str, str]:
    """Pipeline and node of a full name. Raises StoreError for what is none, and for a node that cannot be pinned."""
    if not re.fullmatch(r"\w+/\w+", name, re.ASCII):
        known = [f"{pipeline}/{node}" for pipeline, node, _ in store.refs.all() if pipeline != ADOPTED]
        near = [place for place in known if place.partition("/")[2] == name] or nearest(name, known)
        hint = f"; did you mean {' or '.join(near[:3])}?" if near else ", such as quickstart/trained"
        raise StoreError(f"{name}: give the pipeline and the node, PIPELINE/NODE{hint}")
    pipeline, _, node = name.partition("/")
    if pipeline == ADOPTED:
        raise StoreError(
            f"{name}: what was adopted stays as it is until `tunemill adopt` gives the name away; nothing to pin"
        )
    return pipeline, node


def readable(reason: str) -> str:
    """A reason as one line. Raises StoreError for one that no line can show."""
    line = " ".join(reason.split())
    if len(line) > LONGEST_REASON or not line.isprintable():
        raise StoreError(f"--reason: has to be printable text of up to {LONGEST_REASON} characters")
    return line


def _of_now(name: str, store: Store) -> Published:
    """What a node points to. Raises StoreError that names the command which would give it something."""
    node = _node_of_yaml(name, store)
    ref = store.refs.read(*name.split("/", 1))
    found = Absent("it has no artifact yet") if ref is None else store.lookup(ref.stage, ref.key)
    if isinstance(found, Published) and node is not None and found.stage != node.stage.name:
        raise StoreError(
            f"{name}: its artifact was made by the stage {found.stage}, and {node.stage.name} is asked for now; "
            f"put the YAML back, or give an artifact of that stage with --artifact"
        )
    if isinstance(found, Published):
        return found
    reason = found.reason if ref is None or found.damage else "its artifact is gone from the store"
    known = "" if node is not None or ref is not None else _known(name, store)
    raise StoreError(f"{name}: {reason}, so there is nothing to keep; first: {_command(name, store)}{known}")


def _of_stage(name: str, prefix: str, store: Store) -> Published:
    """The artifact of the node's stage whose key or digest begins with `prefix`."""
    if not re.fullmatch(rf"[0-9a-f]{{{SHORTEST_PREFIX},64}}", prefix):
        raise StoreError(
            f"--artifact {prefix}: give at least the first {SHORTEST_PREFIX} letters of a key or digest, as "
            f"`tunemill cache ls` shows them"
        )
    stage = _stage_of(name, store)
    folders = store.artifacts()
    found = [
        item for item in (store.lookup(f.parent.name, f.name) for f in folders) if isinstance(item, Published)
    ]
    meant = [item for item in found if item.key.startswith(prefix) or item.digest.startswith(prefix)]
    own = [item for item in meant if item.stage == stage]
    if not own:
        reason = f"it is one of the stage {meant[0].stage}" if meant else f"there is none in {store.root}"
        raise StoreError(
            f"--artifact {prefix}: {reason}, and {name} is made by the stage {stage}; `tunemill cache ls` lists them"
        )
    if len({item.digest for item in own}) > 1:
        several = ", ".join(sorted({item.key[: 2 * SHORT] for item in own}))
        raise StoreError(f"--artifact {prefix}: {len(own)} artifacts begin so; say more of it: {several}")
    # Other inputs may have given the same bytes: rather what the node has.
    ref = store.refs.read(*name.split("/", 1))
    return min(own, key=lambda item: (ref is None or item.key != ref.key, item.key))


def _stage_of(name: str, store: Store) -> str:
    """The stage of a node, going by its YAML, or else by what it points to."""
    node = _node_of_yaml(name, store)
    if node is not None:
        return node.stage.name
    ref = store.refs.read(*name.split("/", 1))
    if ref is None:
        raise StoreError(f"{name}: no such node has run in {store.root}{_known(name, store)}")
    return ref.stage


def _node_of_yaml(name: str, store: Store) -> Node | None:
    """The node in the YAML that its pipeline was last run from; None where that is not known or is wrong now.

    Raises StoreError where the YAML has no such node.
    """
    pipeline, _, node = name.partition("/")
    file = read_origin(store.root, pipeline)
    if file is None:
        return None
    try:
        loaded = load_named(file, pipeline, read_grid(store.root, pipeline))
    except (ConfigError, StoreError):
        return None
    if loaded.name != pipeline:
        return None
    names = [item.name for item in loaded.nodes]
    if node not in names:
        near = nearest(node, names)
        hint = f"did you mean {pipeline}/{near[0]}?" if near else f"there are {', '.join(names)}"
        raise StoreError(f"{name}: {file} has no such node; {hint}")
    return loaded.node(node)


def _command(name: str, store: Store) -> str:
    pipeline, _, node = name.partition("/")
    file = read_origin(store.root, pipeline)
    words = ["tunemill", "run", "PIPELINE.YML" if file is None else str(file), "--only", node]
    return shlex.join([*words, "--state", str(store.root)])


def _known(name: str, store: Store) -> str:
    places: Sequence[str] = [
        f"{pipeline}/{node}" for pipeline, node, _ in store.refs.all() if pipeline != ADOPTED
    ]
    near = nearest(name, places)
    return f" (did you mean {near[0]}?)" if near else ""
