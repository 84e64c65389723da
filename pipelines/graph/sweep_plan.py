"""What a sweep has to compute: the nodes of its points, those that several points share once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunemill.pipelines.graph.keys import key_inputs, libraries_of, minor_version
from tunemill.pipelines.graph.nodes import Pipeline
from tunemill.pipelines.graph.plan import Planned, make_plan
from tunemill.pipelines.graph.selection import selection
from tunemill.pipelines.graph.sweep import Sweep
from tunemill.pipelines.graph.sweep_settings import swept_nodes
from tunemill.resources.canonical import hash_document
from tunemill.resources.store import Store


@dataclass(frozen=True)
class PlannedPoint:
    """A point with the plan of its nodes; `left_out` says why the sweep does not run it."""

    pipeline: Pipeline
    plan: Sequence[Planned]
    identities: Mapping[str, str]
    left_out: str | None = None

    @property
    def to_run(self) -> int:
        """How many of its nodes are not there yet."""
        return sum(item.state == "run" for item in self.plan)


@dataclass(frozen=True)
class SharedNode:
    """What is computed once for all the points that have it. `item` is that of the first of them."""

    item: Planned
    points: tuple[str, ...]


def plan_sweep(
    sweep: Sweep, store: Store, only: Sequence[str] = (), refresh: Sequence[str] = ()
) -> list[PlannedPoint]:
    """The plan of every point. Raises ConfigError for a word that means no node, and for a missing source."""
    planned = []
    for pipeline in sweep.pipelines:
        chosen = selection(pipeline, only, refresh)
        names = chosen.only
        if names is None and len(swept := swept_nodes(pipeline)) < len(pipeline.nodes):
            names = frozenset(node.name for node in swept)
        left_out = None if pipeline.point is None else pipeline.point.left_out
        plan = make_plan(pipeline, store, chosen.refresh, names)
        planned.append(PlannedPoint(pipeline, plan, identities(pipeline), left_out))
    return planned


def identities(pipeline: Pipeline) -> dict[str, str]:
    """Node -> what its key will be made of, as far as the YAML says it: the same one gives the same key."""
    found: dict[str, str] = {}
    for node in pipeline.nodes:
        found[node.name] = hash_document(
            {
                "stage": node.stage.name,
                "version": node.stage.version,
                "config": node.config.semantic(),
                "sources": node.sources,
                "inputs": {name: [found.get(up, up) for up in ups] for name, ups in key_inputs(node).items()},
                "libraries": {library: minor_version(library) for library in libraries_of(node)},
            }
        )
    return found


def shared_nodes(points: Sequence[PlannedPoint]) -> list[SharedNode]:
    """All nodes of the points that are run, each once, in the order of the first point that has it.

    What is left alone is none of them; a pinned node is its pipeline's own.
    """
    items: dict[str, Planned] = {}
    having: dict[str, list[str]] = {}
    for point in points:
        assert point.pipeline.point is not None, "of a sweep"
        if point.left_out is not None:
            continue
        for item in point.plan:
            if item.state == "left alone":
                continue
            pinned = "" if item.pin is None else item.pin.key
            identity = f"{point.identities[item.node.name]}{pinned}"
            items.setdefault(identity, item)
            having.setdefault(identity, []).append(point.pipeline.point.name)
    return [SharedNode(item, tuple(having[identity])) for identity, item in items.items()]
