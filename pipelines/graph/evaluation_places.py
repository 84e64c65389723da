"""The nodes that evaluate models: part of the graph's table."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tunemill.pipelines.config.graph_config import GraphConfig
from tunemill.pipelines.graph.place import Place, reading
from tunemill.stages.artifacts import StudentReport
from tunemill.stages.declaration import Stage
from tunemill.stages.registry import EVALUATIONS


@dataclass(frozen=True)
class Evaluated:
    """A model that can be evaluated: the inputs that it is made of, and what stores it if it is quantized."""

    inputs: Mapping[str, tuple[str, ...]]
    stored_by: tuple[Stage, ...] = ()


def evaluation_places(
    graph: GraphConfig, models: Mapping[str, Evaluated], beside: Mapping[str, tuple[str, ...]]
) -> Iterator[Place]:
    """The nodes that score models on the held-out rows, each with those of its inputs that its stage asks for.

    `beside` are inputs that are the same for each.
    """
    if not graph.evaluates:
        return
    stage = EVALUATIONS[graph.method]
    if graph.teacher is not None:
        stage = replace(stage, output=StudentReport)
    asked = set(models if graph.evaluate is None else graph.evaluate)
    exported = {export.node for export in graph.export}
    for what, model in models.items():
        if what not in asked and not (what in exported and "exported" in asked):
            continue
        given = {**model.inputs, "evaluation_data": ("evaluation_data",), **beside}
        inputs = {name: upstream for name, upstream in given.items() if name in stage.inputs}
        yield Place(f"evaluation_of_{what}", reading(stage, *model.stored_by), inputs, about=what)
