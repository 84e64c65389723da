"""Which held-out rows are trained on, by the files and lines that both come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.pipelines.run.suspects import origins
from tunemill.resources.store import Published, Store
from tunemill.stages.artifacts import LeakageReport
from tunemill.stages.errors import RowPlace
from tunemill.stages.evaluation.scored import rows_in

# So many are led back to their files: a person looks at the first ones.
SHOWN = 20


@dataclass(frozen=True)
class ShownLeak:
    """Where a held-out row and the row that it stands in come from, what share of it that has, and a text of both."""

    held_out: str
    trained: str
    share: float
    text: str

    def as_json(self) -> dict[str, Any]:
        return {"held_out": self.held_out, "trained": self.trained, "share": self.share, "text": self.text}


@dataclass(frozen=True)
class Leakage:
    """What a pipeline's node of leakage has found: of so many held-out rows how many, and the first of them."""

    node: str
    rows: int
    leaked: int
    first: tuple[ShownLeak, ...]


def leakage_of(pipeline: Pipeline, artifacts: Mapping[str, Published], store: Store) -> list[Leakage]:
    """What was found, of each node that looks for it and has found something; `artifacts` are those of the nodes."""
    return [
        _leakage(node, artifacts, pipeline, store)
        for node in pipeline.nodes
        if issubclass(node.stage.output, LeakageReport)
        and node.name in artifacts
        and artifacts[node.name].manifest["metrics"]["leaked_rows"]
    ]


def _leakage(node: Node, artifacts: Mapping[str, Published], pipeline: Pipeline, store: Store) -> Leakage:
    made = artifacts[node.name]
    metrics = made.manifest["metrics"]
    leaks = list(islice(rows_in(LeakageReport(made.data).leaks), SHOWN))
    # The inputs by whose names rows are told: those held out first.
    inputs = [name for name in leaks[0] if name in node.inputs]
    sides = [
        _places(node, name, [leak[name] for leak in leaks], artifacts, pipeline, store) for name in inputs
    ]
    shown = [
        ShownLeak(str(one), str(other), leak["share"], leak["text"])
        for one, other, leak in zip(*sides, leaks, strict=True)
    ]
    return Leakage(node.name, metrics["held_out_rows"], metrics["leaked_rows"], tuple(shown))


def _places(
    node: Node,
    name: str,
    rows: Sequence[int],
    artifacts: Mapping[str, Published],
    pipeline: Pipeline,
    store: Store,
) -> list[str]:
    """Where rows of an input come from."""
    (upstream,) = node.inputs[name]
    if upstream not in artifacts:
        return [str(RowPlace(upstream, "row", row + 1)) for row in rows]
    found = origins(rows, pipeline.node(upstream), artifacts[upstream], pipeline, store)
    if len(found) != len(rows):
        found = [RowPlace(upstream, "row", row + 1) for row in rows]
    return [str(place) for place in found]
