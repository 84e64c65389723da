"""The gates of a pipeline as a table, and what they mean for a command's exit code."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tunemill.pipelines.commands.listing import GATE_COLOURS, Listing, listing
from tunemill.pipelines.graph.gates import outcomes
from tunemill.pipelines.graph.nodes import Pipeline
from tunemill.pipelines.graph.plan import Planned
from tunemill.pipelines.run.finished import Finished

if TYPE_CHECKING:
    from tunemill.stages.evaluation.gate_outcome import Outcome


def gates_after(pipeline: Pipeline, finished: Iterable[Finished]) -> list["Outcome"]:
    """What became of the gates in a run; those of evaluations that were left alone are not known."""
    return outcomes(pipeline, {item.node: item.published for item in finished if item.published})


def gates_before(pipeline: Pipeline, plan: Iterable[Planned]) -> list["Outcome"]:
    """How the gates stand with the evaluations that are there already."""
    return outcomes(pipeline, {item.node.name: item.cached for item in plan if item.cached})


def gates_table(found: Sequence["Outcome"]) -> Listing | None:
    """Every gate, what became of it, and why; None where there are none."""
    rows = [(one.gate, f"{one.state}{_passing(one)}", one.text) for one in found]
    return listing(("gate", "state", "why"), rows, GATE_COLOURS) if rows else None


def _passing(one: "Outcome") -> str:
    return ", passes" if one.state == "cannot tell" and not one.blocks else ""


def any_blocks(found: Iterable["Outcome"]) -> bool:
    """Whether what follows a gate has to wait."""
    return any(one.blocks for one in found)
