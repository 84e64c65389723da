"""The node of what is published: part of the graph's table."""

from collections.abc import Iterator, Sequence

from tunemill.pipelines.config.graph_config import GraphConfig
from tunemill.pipelines.graph.place import Place
from tunemill.stages.artifacts import Adapter, EvaluationReport, GgufModel, LeakageReport, Model
from tunemill.stages.models.published.stage import PUBLISHED

# What may be published: what was trained and what was made of it.
PUBLISHABLE = (Adapter, GgufModel, Model)
TRAINED, BASE = "trained", "base"


def published_places(graph: GraphConfig, found: Sequence[Place]) -> Iterator[Place]:
    """The model with what evaluations say of it and of the base, and those that gates are about."""
    names = publishable(found)
    if not graph.publish_places or graph.publish_of not in names:
        return
    asked = {node for gate in graph.gates for node in gate.nodes}
    scores = [place for place in found if issubclass(place.stage.output, EvaluationReport)]
    told = tuple(
        place.name for place in scores if place.about in (BASE, graph.publish_of) or place.name in asked
    )
    looking = tuple(place.name for place in found if place.stage.output is LeakageReport)
    inputs = {
        "model": (graph.publish_of,),
        "evaluations": told,
        "training": (TRAINED,),
        "leakage": looking if graph.leakage == "fail" else (),
    }
    given = {"of": graph.publish_of, "model_name": graph.publish_title, "evaluations": list(told)}
    yield Place("published", PUBLISHED, {name: ups for name, ups in inputs.items() if ups}, given=given)


def publishable(found: Sequence[Place]) -> list[str]:
    """The nodes whose models can be published: those from the training on."""
    names = [place.name for place in found]
    after = found[names.index(TRAINED) :] if TRAINED in names else ()
    return [place.name for place in after if issubclass(place.stage.output, PUBLISHABLE)]
