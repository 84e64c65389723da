"""The code version that Dagster shows: it moves when stage version, semantic slice or sources move."""

from tunemill.pipelines.config.document import Document
from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.keys import identify_sources, key_document
from tunemill.pipelines.graph.nodes import Node
from tunemill.resources.canonical import hash_document
from tunemill.resources.store import Store


def code_version(node: Node, document: Document, store: Store) -> str:
    """The key of the node without its inputs, which Dagster compares by itself."""
    try:
        sources = identify_sources(node, document, store.stat_cache)
    except ConfigError:
        # The file may come later; the run will say that it is missing.
        sources = {}
    return hash_document(key_document(node, {}, sources))
