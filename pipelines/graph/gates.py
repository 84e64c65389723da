"""What `pipeline.gates` speaks of, in this graph: what is wrong with it, and how its gates stand."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from tunemill.pipelines.config.document import Document, problem_at
from tunemill.pipelines.config.graph_config import GraphConfig
from tunemill.pipelines.config.problems import Problem
from tunemill.pipelines.graph.gate_memory import remembered_outcome
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.pipelines.graph.place import Place
from tunemill.resources.store import Published
from tunemill.stages.artifacts import EvaluationReport, LeakageReport
from tunemill.stages.choices import nearest
from tunemill.stages.evaluation.gate import NAMED, Gate, LeakageGate, evaluation_node

if TYPE_CHECKING:
    from tunemill.stages.evaluation.gate_outcome import Outcome


def gate_problems(
    gates: Sequence[Gate], places: Sequence[Place], nodes: Sequence[Node], document: Document
) -> Iterator[Problem]:
    """Gates about models that are not evaluated, about metrics that are not computed, and those that stand twice."""
    evaluated = {
        place.name: place.about or "" for place in places if issubclass(place.stage.output, EvaluationReport)
    }
    configs = {node.name: node.config for node in nodes}
    for index, gate in enumerate(gates):
        entry = ("pipeline", "gates", index)
        if gate in gates[:index]:
            yield problem_at(entry, document, "conflict", f"{gate.words}: stands here twice. Take one out")
        for key, what in (("of", gate.of), ("max_drop_from", gate.max_drop_from)):
            if what is not None and evaluation_node(what, gate.evaluation) not in evaluated:
                yield _not_evaluated(gate, key, what, evaluated, (*entry, key), document)
        config = configs.get(gate.node)
        known = None if config is None else config.written_metrics()
        if known is not None and gate.metric not in known:
            near = nearest(gate.metric, sorted(known))
            message = f"{gate.metric} is no figure of {gate.node}, which computes {', '.join(sorted(known))}"
            yield problem_at((*entry, "metric"), document, "value", message, near[0] if near else None)


def _not_evaluated(
    gate: Gate,
    key: str,
    what: str,
    evaluated: dict[str, str],
    place: tuple[str | int, ...],
    document: Document,
) -> Problem:
    """What is said of a gate about a model, or an evaluation, that the pipeline does not evaluate."""
    there = [model for node, model in evaluated.items() if node == evaluation_node(model, gate.evaluation)]
    if not evaluated:
        message = (
            f"{key}: nothing is evaluated here. Give test_datasets or val_set_size, or take the gate out"
        )
    elif not there and gate.evaluation is not None:
        message = f"there is no evaluation {gate.evaluation} in pipeline.evaluations"
        place = (*place[:-1], NAMED)
    else:
        where = "" if gate.evaluation is None else f" in {gate.evaluation}"
        message = f"{what} is not evaluated{where}; {', '.join(there) or 'nothing'} is"
    near = nearest(what, there) if place[-1] == key else []
    return problem_at(place, document, "value", message, near[0] if near else None)


def all_gates(graph: GraphConfig, places: Sequence[Place]) -> tuple[Gate, ...]:
    """The gates of the YAML, and those of leakage where it is one."""
    looking = (place.name for place in places if issubclass(place.stage.output, LeakageReport))
    return (*graph.gates, *(LeakageGate(of=name) for name in looking if graph.leakage == "fail"))


def outcomes(pipeline: Pipeline, artifacts: Mapping[str, Published]) -> list["Outcome"]:
    """What becomes of each gate of the pipeline with the artifacts of its nodes, by name.

    An evaluation that only the team's store has is not known yet: a run brings it.
    """
    here = {name: one for name, one in artifacts.items() if not one.elsewhere}
    return [remembered_outcome(gate, here) for gate in pipeline.gates]
