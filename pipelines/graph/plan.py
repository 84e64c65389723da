"""What is there, what must run, and why. Reads the store and the sources; changes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunemill.pipelines.config.document import Document
from tunemill.pipelines.config.slices import ASSET_SCHEME
from tunemill.pipelines.graph.differences import differences
from tunemill.pipelines.graph.keys import identify_sources, key_document, key_inputs
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.resources.canonical import hash_document
from tunemill.resources.refs import Ref
from tunemill.resources.store import Absent, Published, Store


@dataclass(frozen=True)
class Resolved:
    """A node whose key is known: what the store has for it."""

    key: str
    document: Mapping[str, Any]
    found: Published | Absent


@dataclass(frozen=True)
class Planned:
    """A node of the plan. `key` is unknown while an upstream node has yet to run."""

    node: Node
    key: str | None
    cached: Published | None
    reasons: tuple[str, ...]
    last_seconds: float | None
    ref_is_current: bool

    @property
    def state(self) -> str:
        return "cached" if self.cached else "run"

    def as_json(self) -> dict[str, Any]:
        return {
            "node": self.node.name,
            "stage": self.node.stage.name,
            "state": self.state,
            "reasons": list(self.reasons),
            "key": self.key,
            "last_seconds": self.last_seconds,
        }


def make_plan(pipeline: Pipeline, store: Store, refresh: Sequence[str] = ()) -> list[Planned]:
    """The plan of every node. `refresh` names nodes to compute again. Raises ConfigError for a missing source."""
    done: dict[str, Published] = {}
    planned = []
    for node in pipeline.nodes:
        item = _plan_node(pipeline, node, store, done, node.name in refresh)
        if item.cached:
            done[node.name] = item.cached
        planned.append(item)
    return planned


def resolve(node: Node, document: Document, store: Store, done: Mapping[str, Published]) -> Resolved:
    """Key and store entry of a node whose keyed inputs are all in `done`."""
    inputs = {name: [done[upstream].digest for upstream in ups] for name, ups in key_inputs(node).items()}
    keyed = key_document(node, inputs, identify_sources(node, document, store.stat_cache))
    key = hash_document(keyed)
    return Resolved(key, keyed, store.lookup(node.stage.name, key))


def upstream_asset(name: str, store: Store) -> Published | Absent:
    """The artifact behind `asset://<pipeline>/<node>`: what that node points to now."""
    pipeline, _, node = name.removeprefix(ASSET_SCHEME).partition("/")
    ref = store.refs.read(pipeline, node)
    if ref is None:
        return Absent(f"{name} is not there: run the pipeline {pipeline!r} first, with the same --state")
    return store.lookup(ref.stage, ref.key)


def node_ref(pipeline: Pipeline, node: Node, store: Store) -> Ref | None:
    """What a node pointed to last."""
    return store.refs.read(pipeline.name, node.name)


def _plan_node(
    pipeline: Pipeline, node: Node, store: Store, done: dict[str, Published], refresh: bool
) -> Planned:
    ref = node_ref(pipeline, node, store)
    absent = []
    for upstream in (name for ups in key_inputs(node).values() for name in ups):
        if upstream.startswith(ASSET_SCHEME) and upstream not in done:
            match upstream_asset(upstream, store):
                case Published() as published:
                    done[upstream] = published
                case Absent(reason=reason):
                    absent.append(reason)
        elif upstream not in done:
            absent.append(f"waits on upstream {upstream}")
    if absent:
        identify_sources(node, pipeline.document, store.stat_cache)
        return Planned(node, None, None, tuple(absent), _seconds(store, ref), False)
    resolved = resolve(node, pipeline.document, store, done)
    last_seconds = _seconds(store, ref, resolved.found)
    if isinstance(resolved.found, Published) and not refresh:
        current = ref is not None and ref.key == resolved.key
        return Planned(node, resolved.key, resolved.found, (), last_seconds, current)
    reasons = ("asked for with --refresh",) if refresh else explain(store, ref, resolved, node)
    return Planned(node, resolved.key, None, reasons, last_seconds, False)


def explain(store: Store, ref: Ref | None, resolved: Resolved, node: Node) -> tuple[str, ...]:
    """Why a node must run: what differs from the node's last artifact."""
    assert isinstance(resolved.found, Absent)
    if resolved.found.damage or ref is None:
        return (resolved.found.reason,)
    if ref.key == resolved.key:
        return ("its artifact is gone from the store",)
    before = store.key_document(ref.stage, ref.key)
    if before is None:
        return ("its last artifact is gone from the store, so there is nothing to compare with",)
    return tuple(differences(before, dict(resolved.document), node)) or (resolved.found.reason,)


def _seconds(store: Store, ref: Ref | None, found: Published | Absent | None = None) -> float | None:
    """How long the last artifact took; often it is the one that was `found` just now."""
    if ref is None:
        return None
    if not isinstance(found, Published) or (found.stage, found.key) != (ref.stage, ref.key):
        found = store.lookup(ref.stage, ref.key)
    return float(found.manifest["seconds"]) if isinstance(found, Published) else None
