"""A run that computes what is there already once more: a tag of the run says so."""

from dataclasses import replace

import dagster as dg

from tunemill.pipelines.graph.nodes import Node
from tunemill.pipelines.graph.selection import selection
from tunemill.pipelines.run.materialize import Session

AGAIN = "tunemill/compute_again"
# The value that means every node of the run; any other is a list of words, as `--refresh` takes them.
SELECTED = "selected"


def with_refresh(session: Session, node: Node, context: dg.AssetExecutionContext) -> Session:
    """The session of a run, which computes the node again if the run's tag asks for it.

    What is pinned is not asked for by `selected`. Raises ConfigError for a word that means no node.
    """
    words = context.run.tags.get(AGAIN)
    if words is None:
        return session
    if words != SELECTED:
        return replace(session, refresh=selection(session.pipeline, [], [words]).refresh)
    is_pinned = node.name in session.store.pins.of(session.pipeline.name)
    return session if is_pinned else replace(session, refresh={node.name})
