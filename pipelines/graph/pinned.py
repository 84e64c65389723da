"""Nodes that are pinned: which artifact they keep, and which nodes nobody needs because of them."""

from collections.abc import Collection
from dataclasses import dataclass

from tunemill.pipelines.config.slices import ASSET_SCHEME
from tunemill.pipelines.graph.keys import looked_at_by, upstream_of
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.resources.canonical import SHORT
from tunemill.resources.errors import StoreError
from tunemill.resources.pins import Pin
from tunemill.resources.protocols import ADOPTED
from tunemill.resources.store import Absent, Published, Store


@dataclass(frozen=True)
class Pinned:
    """A pin, and the artifact that it names: whole, its contents looked at."""

    pin: Pin
    artifact: Published


def pinned_artifact(pipeline: str, node: Node, store: Store) -> Pinned | None:
    """What a node is pinned to, None where it is not. Raises StoreError for what cannot be served."""
    pin = store.pins.read(pipeline, node.name)
    if pin is None:
        return None
    name = f"{pipeline}/{node.name}"
    if pin.stage != node.stage.name:
        raise StoreError(
            f"{name} is {pin}, which the stage {pin.stage} has made, and the YAML asks for one of the stage "
            f"{node.stage.name}; {unpinning(name)}"
        )
    artifact = whole(name, pin, store)
    if node.stage.output.__name__ not in artifact.manifest["artifact"]:
        made = artifact.manifest["artifact"][0]
        raise StoreError(
            f"{name} is {pin}, which is of type {made}, and has to be of type {node.stage.output.__name__}; "
            f"{unpinning(name)}"
        )
    return Pinned(pin, artifact)


def whole(name: str, pin: Pin, store: Store) -> Published:
    """The artifact that `name` is pinned to. Raises StoreError where it is gone, another one by now, or damaged."""
    found = store.lookup(pin.stage, pin.key)
    folder = store.folder(pin.stage, pin.key)
    if isinstance(found, Absent):
        reason = found.reason if found.damage else "which is gone from the store"
        raise StoreError(f"{name} is {pin}, {reason} ({folder}); {unpinning(name)}")
    if found.digest != pin.digest:
        raise StoreError(
            f"{name} is {pin}, and another artifact, {found.digest[:SHORT]}, has taken its place ({folder}); "
            f"{unpinning(name)}, and `tunemill pin` it anew if that is the one to keep"
        )
    if not found.elsewhere and (changed := store.changed_files(found)):
        raise StoreError(
            f"{name} is {pin}, which is damaged: the contents of {', '.join(changed[:3])} changed ({folder}); "
            f"{unpinning(name)}, and `tunemill cache verify` sets the artifact aside"
        )
    return found


def unpinning(name: str) -> str:
    """How a pin is taken away."""
    return f"`tunemill unpin {name}` lets it be computed again"


def pinned_asset(name: str, store: Store) -> Pinned | None:
    """What the node behind `asset://<pipeline>/<node>` is pinned to. Raises StoreError for what cannot be served."""
    place = name.removeprefix(ASSET_SCHEME)
    pipeline, _, node = place.partition("/")
    pin = None if pipeline == ADOPTED else store.pins.read(pipeline, node)
    return None if pin is None else Pinned(pin, whole(place, pin, store))


def idle_because(pipeline: Pipeline, pinned: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The nodes that only pinned nodes are made from or look at, each with those pinned ones.

    Nobody needs them. A node that no other one takes is there for its own sake, and so is one that is pinned; but one
    that accompanies others is there for theirs.
    """
    taken = {upstream for node in pipeline.nodes for upstream in (*upstream_of(node), *looked_at_by(node))}
    accompanied = {node.name: accompanied_by(node) for node in pipeline.nodes if node.name not in taken}
    users: dict[str, list[str]] = {}
    for node in pipeline.nodes:
        for upstream in (*upstream_of(node), *looked_at_by(node)):
            if upstream not in accompanied.get(node.name, ()):
                users.setdefault(upstream, []).append(node.name)
    idle: dict[str, tuple[str, ...]] = {}
    # What is looked at may stand behind those that look at it.
    while True:
        before = len(idle)
        for node in reversed(pipeline.nodes):
            those = users.get(node.name, [])
            if those and node.name not in pinned and all(name in pinned or name in idle for name in those):
                ways = [(name,) if name in pinned else idle[name] for name in those]
                idle[node.name] = tuple(dict.fromkeys(name for way in ways for name in way))
            for name in accompanied.get(node.name, ()):
                if name in idle and node.name not in pinned:
                    idle.setdefault(node.name, idle[name])
        if len(idle) == before:
            return idle


def without_node(pipeline: Pipeline, store: Store) -> list[str]:
    """What is to say of pins of the pipeline whose nodes it does not have."""
    names = {node.name for node in pipeline.nodes}
    return [
        f"{pipeline.name}/{node} is {pin}, and {pipeline.document.path.name} has no such node; "
        f"`tunemill unpin {pipeline.name}/{node}` takes the pin away"
        for node, pin in store.pins.of(pipeline.name).items()
        if node not in names
    ]


def accompanied_by(node: Node) -> tuple[str, ...]:
    """The nodes that it looks at beside those who need them."""
    return tuple(name for field in node.stage.accompanies for name in node.inputs.get(field, ()))
