"""What the sources of a node hold, as one word: equal words, equal contents. And what a whole pipeline asks for."""

from collections.abc import Mapping, Sequence
from typing import Any

from tunemill.pipelines.config.document import Document
from tunemill.pipelines.config.slices import ASSET_SCHEME
from tunemill.pipelines.graph.keys import comparable, identify_sources, key_document, keyed, upstream_of
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.resources.canonical import hash_document
from tunemill.resources.identity import StatCache
from tunemill.resources.store import Published, Store

PREFIX = "source_of_"


def source_name(node: Node) -> str:
    """The name under which what a node reads from outside stands beside the nodes."""
    return f"{PREFIX}{node.name}"


def source_version(node: Node, document: Document, cache: StatCache) -> str:
    """What the sources of a node hold now. Raises ConfigError for one that is not there."""
    return _version(identify_sources(node, document, cache))


def version_in(published: Published, store: Store) -> str | None:
    """What the sources held that an artifact was made from."""
    document = store.key_document(published.stage, published.key)
    return None if document is None else hash_document(document["sources"])


def contents_of(node: Node, document: Document, cache: StatCache) -> str:
    """The same as `source_version`, but of what has no identity always the same word."""
    return hash_document(comparable(identify_sources(node, document, cache)))


def asked_for(pipeline: Pipeline, store: Store) -> str:
    """All that a pipeline asks for now, settings and contents: two runs with equal words would do the same."""
    return hash_document(
        {
            node.name: {
                "asks": key_document(
                    node, {}, comparable(identify_sources(node, pipeline.document, store.stat_cache))
                ),
                "takes": {
                    name: _ref_of(name, store) for name in upstream_of(node) if name.startswith(ASSET_SCHEME)
                },
            }
            for node in pipeline.nodes
        }
    )


def _ref_of(name: str, store: Store) -> str:
    pipeline, _, node = name.removeprefix(ASSET_SCHEME).partition("/")
    ref = store.ref(pipeline, node)
    return "" if ref is None else ref.key


def _version(sources: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    return hash_document({field: [keyed(item) for item in items] for field, items in sources.items()})
