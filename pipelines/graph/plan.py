"""What is there, what must run, and why. Reads the store and the sources; changes nothing."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tunemill.pipelines.config.document import Document
from tunemill.pipelines.config.slices import ASSET_SCHEME
from tunemill.pipelines.graph.differences import differences
from tunemill.pipelines.graph.keys import (
    identify_sources,
    key_document,
    key_inputs,
    looked_at_by,
    upstream_of,
    with_upstream,
)
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.pipelines.graph.pinned import idle_because, pinned_artifact, pinned_asset, unpinning
from tunemill.pipelines.graph.provenance import described
from tunemill.pipelines.graph.resolved import Resolved
from tunemill.resources.canonical import hash_document
from tunemill.resources.errors import StoreError
from tunemill.resources.pins import Pin
from tunemill.resources.protocols import ADOPTED
from tunemill.resources.refs import Ref
from tunemill.resources.store import Absent, Published, Store


@dataclass(frozen=True)
class Planned:
    """A node of the plan. `key` is unknown while an upstream node has yet to run.

    `resumes_from` is the checkpoint of an interrupted attempt that it would go on from. `left_alone` are those that
    are not asked for, of which nothing is looked at; `only_for` names the pinned nodes because of which nobody needs
    it. `pin` is what keeps `cached` whatever the YAML asks for, and `pinned_inputs` are the pins of other pipelines'
    nodes that it takes.
    """

    node: Node
    key: str | None
    cached: Published | None
    reasons: tuple[str, ...]
    last_seconds: float | None
    ref_is_current: bool
    resumes_from: str | None = None
    left_alone: bool = False
    only_for: tuple[str, ...] = ()
    pin: Pin | None = None
    pinned_inputs: Mapping[str, Pin] = field(default_factory=dict)

    @property
    def state(self) -> Literal["cached", "pinned", "run", "left alone"]:
        if self.left_alone:
            return "left alone"
        if self.pin is not None:
            return "pinned"
        return "cached" if self.cached else "run"

    @property
    def why(self) -> tuple[str, ...]:
        """The reasons to run, and where it would begin; or why it does not."""
        said = list(self.reasons)
        if self.resumes_from is not None:
            said.append(f"goes on from an interrupted attempt, at {self.resumes_from}")
        if self.cached is not None and self.cached.elsewhere:
            said.append("in the team's store")
        if self.pin is not None:
            said.append(str(self.pin))
        if self.only_for:
            verb = "which is" if len(self.only_for) == 1 else "which are"
            said.append(f"only {' and '.join(self.only_for)} would need it, {verb} pinned")
        said += [f"takes {name}, which is {pin}" for name, pin in self.pinned_inputs.items()]
        return tuple(said)

    def as_json(self) -> dict[str, Any]:
        return {
            "node": self.node.name,
            "stage": self.node.stage.name,
            "state": self.state,
            "reasons": list(self.reasons),
            "key": self.key,
            "last_seconds": self.last_seconds,
            "resumes_from": self.resumes_from,
            "pin": None if self.pin is None else self.pin.as_json(),
            "only_for": list(self.only_for),
            "pinned_inputs": {name: pin.as_json() for name, pin in self.pinned_inputs.items()},
        }


def make_plan(
    pipeline: Pipeline, store: Store, refresh: Collection[str] = (), only: Collection[str] | None = None
) -> list[Planned]:
    """The plan of every node. Raises ConfigError for a missing source, StoreError for what cannot stay pinned,
    UserError where a server does not answer that tells a part of a key.

    `refresh` names nodes to compute again. With `only` these nodes are brought up to date with what they are made from,
    and with what those of them that run look at; all others are left alone.
    """
    pinned = store.pins.of(pipeline.name)
    refuse_refresh(pipeline, refresh, pinned)
    needed = needed_nodes(pipeline, pinned, only, refresh)
    while True:
        planned = _plan_nodes(pipeline, store, refresh, needed, pinned)
        beside = [name for item in planned if item.state == "run" for name in looked_at_by(item.node)]
        more = with_upstream(pipeline, beside, pinned) - needed
        if not more:
            return planned
        needed |= more


def needed_nodes(
    pipeline: Pipeline, pinned: Collection[str], only: Collection[str] | None, refresh: Collection[str] = ()
) -> set[str]:
    """The nodes to look at: those asked for, and what they are made from as far as that is not `pinned`."""
    if only is None:
        idle = idle_because(pipeline, pinned)
        only = {node.name for node in pipeline.nodes if node.name not in idle}
    return with_upstream(pipeline, {*only, *refresh}, pinned)


def refuse_refresh(pipeline: Pipeline, refresh: Collection[str], pinned: Mapping[str, Pin]) -> None:
    """Raises StoreError where a node that is pinned is to be computed again."""
    if both := [name for name in pinned if name in refresh]:
        name = f"{pipeline.name}/{both[0]}"
        more = f"; so are {', '.join(both[1:])}" if both[1:] else ""
        raise StoreError(
            f"--refresh {both[0]}: it is {pinned[both[0]]}{more}. Leave it out, or {unpinning(name)}"
        )


def refuse_replacing(node: Node, key: str, store: Store) -> None:
    """Raises StoreError where the artifact that is to be computed again is one that any pin names."""
    for name, pin in store.pins.all().items():
        if (pin.stage, pin.key) == (node.stage.name, key):
            raise StoreError(
                f"--refresh {node.name}: its artifact is the one that {name} is {pin}, and would be replaced. Leave it "
                f"out, or {unpinning(name)}"
            )


def not_in_place(plan: Sequence[Planned]) -> list[str]:
    """The nodes to hand to Dagster: those that must run or whose ref must move, and all downstream of them.

    What is left alone is none of them.
    """
    names: list[str] = []
    for item in plan:
        if item.left_alone:
            continue
        downstream = item.pin is None and any(name in names for name in upstream_of(item.node))
        if not item.cached or not item.ref_is_current or downstream:
            names.append(item.node.name)
    return names


def _plan_nodes(
    pipeline: Pipeline,
    store: Store,
    refresh: Collection[str],
    needed: Collection[str],
    pinned: Collection[str],
) -> list[Planned]:
    done: dict[str, Published] = {}
    idle = idle_because(pipeline, pinned)
    planned = []
    for node in pipeline.nodes:
        if node.name not in needed:
            seconds = _seconds(store, node_ref(pipeline, node, store))
            because = idle.get(node.name, ())
            planned.append(Planned(node, None, None, (), seconds, False, left_alone=True, only_for=because))
            continue
        item = _plan_node(pipeline, node, store, done, node.name in refresh)
        if item.cached:
            done[node.name] = item.cached
        planned.append(item)
    return planned


def resolve(node: Node, document: Document, store: Store, done: Mapping[str, Published]) -> Resolved:
    """Key and store entry of a node whose keyed inputs are all in `done`."""
    inputs = {name: [done[upstream].digest for upstream in ups] for name, ups in key_inputs(node).items()}
    sources = identify_sources(node, document, store.stat_cache)
    keyed = key_document(node, inputs, sources)
    key = hash_document(keyed)
    return Resolved(key, keyed, store.lookup(node.stage.name, key), sources)


def upstream_asset(name: str, store: Store) -> Published | Absent:
    """The artifact behind `asset://<pipeline>/<node>`: what that node points to now."""
    pipeline, _, node = name.removeprefix(ASSET_SCHEME).partition("/")
    if (pinned := pinned_asset(name, store)) is not None:
        return pinned.artifact
    ref = store.refs.read(pipeline, node)
    if ref is None and pipeline == ADOPTED:
        return Absent(f"{name} is not there: tunemill adopt FOLDER --as {node}, with the same --state")
    if ref is None:
        return Absent(f"{name} is not there: run the pipeline {pipeline!r} first, with the same --state")
    return store.lookup(ref.stage, ref.key)


def node_ref(pipeline: Pipeline, node: Node, store: Store) -> Ref | None:
    """What a node is pinned to, or else pointed to last."""
    return store.ref(pipeline.name, node.name)


def _plan_node(
    pipeline: Pipeline, node: Node, store: Store, done: dict[str, Published], refresh: bool
) -> Planned:
    ref = node_ref(pipeline, node, store)
    if (pinned := pinned_artifact(pipeline.name, node, store)) is not None:
        own, seconds = pinned.artifact, float(pinned.artifact.manifest["seconds"])
        is_current = store.refs.read(pipeline.name, node.name) == pinned.pin.ref
        return Planned(node, own.key, own, (), seconds, is_current, pin=pinned.pin)
    absent, others = missing_inputs(node, store, done), pins_of_others(node, store)
    if absent:
        identify_sources(node, pipeline.document, store.stat_cache)
        return Planned(node, None, None, tuple(absent), _seconds(store, ref), False, pinned_inputs=others)
    node = described(pipeline, node, done)
    resolved = resolve(node, pipeline.document, store, done)
    last_seconds = _seconds(store, ref, resolved.found)
    if isinstance(resolved.found, Published) and not refresh:
        current = ref is not None and ref.key == resolved.key
        return Planned(node, resolved.key, resolved.found, (), last_seconds, current, pinned_inputs=others)
    if refresh:
        refuse_replacing(node, resolved.key, store)
    reasons = ("asked for with --refresh",) if refresh else explain(store, ref, resolved, node)
    resumes_from = _resumes_from(store, node, resolved.key)
    return Planned(node, resolved.key, None, reasons, last_seconds, False, resumes_from, pinned_inputs=others)


def missing_inputs(node: Node, store: Store, done: dict[str, Published]) -> list[str]:
    """Why a node's key is not known yet. What other pipelines give to it is put into `done`."""
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
    return absent


def pins_of_others(node: Node, store: Store) -> dict[str, Pin]:
    """The pins of other pipelines' nodes (`asset://` names) that a node takes."""
    named = [name for name in upstream_of(node) if name.startswith(ASSET_SCHEME)]
    found = {name: pinned_asset(name, store) for name in named}
    return {name: pinned.pin for name, pinned in found.items() if pinned is not None}


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
    if resolved.found.damage or resolved.found.refused or ref is None:
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
