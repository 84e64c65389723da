"""What pinned nodes, and those that nobody needs because of them, would do without their pins, and why."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.differences import differences
from tunemill.pipelines.graph.nodes import Pipeline
from tunemill.pipelines.graph.plan import Planned, explain, missing_inputs, node_ref, resolve
from tunemill.resources.canonical import SHORT
from tunemill.resources.store import Published, Store


@dataclass(frozen=True)
class Unpinned:
    """`same`: its YAML asks for what it has. `other`: for another artifact of the store. `run`: for a new one."""

    state: Literal["same", "other", "run", "not known"]
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        said = {
            "same": "without the pin: the same artifact",
            "other": "without the pin: another artifact of the store",
            "run": "without the pin: would run",
            "not known": "without the pin: not known",
        }
        return ": ".join([said[self.state], *(["; ".join(self.reasons)] if self.reasons else [])])

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def without_pins(pipeline: Pipeline, store: Store, plan: Sequence[Planned]) -> dict[str, Unpinned]:
    """By node. Each is told as if its own pin was not there, with what it takes from other pinned nodes."""
    done: dict[str, Published] = {}
    found: dict[str, Unpinned] = {}
    for item in plan:
        if item.pin is None and not item.only_for:
            if item.cached is not None:
                done[item.node.name] = item.cached
            continue
        told, made = _told(pipeline, item, store, done)
        found[item.node.name] = told
        made = item.cached or made
        if made is not None:
            done[item.node.name] = made
    return found


def _told(
    pipeline: Pipeline, item: Planned, store: Store, done: dict[str, Published]
) -> tuple[Unpinned, Published | None]:
    """What would become of a node, and the artifact that it would have if that is in the store."""
    node = item.node
    try:
        if absent := missing_inputs(node, store, done):
            return Unpinned("run", tuple(absent)), None
        resolved = resolve(node, pipeline.document, store, done)
    except ConfigError as error:
        # Whoever keeps a result may have thrown away what it was made from.
        return Unpinned("not known", tuple(problem.message for problem in error.problems[:1])), None
    ref = node_ref(pipeline, node, store)
    if not isinstance(resolved.found, Published):
        return Unpinned("run", explain(store, ref, resolved, node)), None
    if ref is None or ref.key == resolved.key:
        return Unpinned("same", ()), resolved.found
    before = store.key_document(ref.stage, ref.key) or {}
    why = differences(before, dict(resolved.document), node) if before else []
    return Unpinned("other", (resolved.found.digest[:SHORT], *why)), resolved.found
