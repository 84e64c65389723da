"""Which nodes evaluating alone takes: the evaluations, and the data that only they read."""

from collections.abc import Callable, Iterable

from tunemill.pipelines.config.slices import ASSET_SCHEME
from tunemill.pipelines.graph.keys import upstream_of
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.pipelines.graph.verb_places import VERBS

# The tag of their assets, to select them by.
EVALUATES = "tunemill/evaluates"


def evaluation_nodes(pipeline: Pipeline) -> list[str]:
    """The evaluations, and the data that are prepared for them, in an order in which they can run.

    Data that a model is made from too are taken as they are: to prepare them anew would say of the model's rows what
    they were not when it was trained.
    """
    nodes = {node.name: node for node in pipeline.nodes}
    evaluations = {node.name for node in pipeline.nodes if evaluates(node)}
    found = _upstream(nodes, evaluations, lambda node: evaluates(node) or node.stage.prepares_data)
    models = {node.name for node in pipeline.nodes if not (evaluates(node) or node.stage.prepares_data)}
    for_models = _upstream(nodes, {up for name in models for up in upstream_of(nodes[name])}, lambda _: True)
    return [name for name in nodes if name in found and (name in evaluations or name not in for_models)]


def _upstream(nodes: dict[str, Node], names: Iterable[str], takes: Callable[[Node], bool]) -> set[str]:
    """These nodes and what is before them, as far as it is taken."""
    found: set[str] = set()
    pending = [name for name in names if not name.startswith(ASSET_SCHEME) and takes(nodes[name])]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            ups = [up for up in upstream_of(nodes[name]) if not up.startswith(ASSET_SCHEME)]
            pending += [up for up in ups if takes(nodes[up])]
    return found


def evaluates(node: Node) -> bool:
    """Whether a node is an evaluation."""
    return VERBS["evaluate"].means(node)
