"""What is there, what must run, and why. Reads the store and the sources; changes nothing."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tunemill.pipelines.config.document import Document
from tunemill.pipelines.config.slices import ASSET_SCHEME
from tunemill.pipelines.graph.differences import differences
from tunemill.pipelines.graph.keys import (
    identify_sources,
    key_document,
    key_inputs,
    looked_at_by,
    with_upstream,
)
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.resources.canonical import hash_document
from tunemill.resources.protocols import ADOPTED
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
    """A node of the plan. `key` is unknown while an upstream node has yet to run.

    `resumes_from` is the checkpoint of an interrupted attempt that it would go on from. `left_alone` are those that
    are not asked for, of which nothing is looked at.
    """

    node: Node
    key: str | None
    cached: Published | None
    reasons: tuple[str, ...]
    last_seconds: float | None
    ref_is_current: bool
    resumes_from: str | None = None
    left_alone: bool = False

    @property
    def state(self) -> Literal["cached", "run", "left alone"]:
        if self.left_alone:
            return "left alone"
        return "cached" if self.cached else "run"

    @property
    def why(self) -> tuple[str, ...]:
        """The reasons to run, and where it would begin."""
        if self.resumes_from is None:
            return self.reasons
        return (*self.reasons, f"goes on from an interrupted attempt, at {self.resumes_from}")

    def as_json(self) -> dict[str, Any]:
        return {
            "node": self.node.name,
            "stage": self.node.stage.name,
            "state": self.state,
            "reasons": list(self.reasons),
            "key": self.key,
            "last_seconds": self.last_seconds,
            "resumes_from": self.resumes_from,
        }


def make_plan(
    pipeline: Pipeline, store: Store, refresh: Collection[str] = (), only: Collection[str] | None = None
) -> list[Planned]:
    """The plan of every node. Raises ConfigError for a missing source.

    `refresh` names nodes to compute again. With `only` these nodes are brought up to date with what they are made from,
    and with what those of them that run look at; all others are left alone.
    """
    if only is None:
        return _plan_nodes(pipeline, store, refresh, {node.name for node in pipeline.nodes})
    needed = with_upstream(pipeline, only)
    while True:
        planned = _plan_nodes(pipeline, store, refresh, needed)
        beside = [name for item in planned if item.state == "run" for name in looked_at_by(item.node)]
        more = with_upstream(pipeline, beside) - needed
        if not more:
            return planned
        needed |= more


def _plan_nodes(
    pipeline: Pipeline, store: Store, refresh: Collection[str], needed: Collection[str]
) -> list[Planned]:
    done: dict[str, Published] = {}
    planned = []
    for node in pipeline.nodes:
        if node.name not in needed:
            seconds = _seconds(store, node_ref(pipeline, node, store))
            planned.append(Planned(node, None, None, (), seconds, False, left_alone=True))
            continue
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
    if ref is None and pipeline == ADOPTED:
        return Absent(f"{name} is not there: tunemill adopt FOLDER --as {node}, with the same --state")
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
    resumes_from = _resumes_from(store, node, resolved.key)
    return Planned(node, resolved.key, None, reasons, last_seconds, False, resumes_from)


def _resumes_from(store: Store, node: Node, key: str) -> str | None:
    """The name of the checkpoint that an interrupted attempt has left, and that the node would go on from."""
    left = store.left_checkpoints(node.stage.name, key) if node.stage.resumes_from else None
    if left is None or node.stage.resumes_from is None:
        return None
    found = node.stage.resumes_from(left)
    return None if found is None else found.name


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
