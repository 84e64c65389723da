"""The code version that Dagster shows: it moves when stage version, semantic slice or libraries move.

Contents of sources are no part of it: they are data versions of the assets of the sources, which Dagster compares by
itself, as it does with inputs. A run reads files later than the definitions were loaded.
"""

from typing import Any

from tunemill.pipelines.graph.keys import key_document
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.pipelines.graph.pinned import idle_because
from tunemill.pipelines.graph.provenance import FIELD
from tunemill.resources.canonical import hash_document
from tunemill.resources.store import Store
from tunemill.stages.errors import UserError


def code_versions(pipeline: Pipeline, store: Store) -> dict[str, str]:
    """The code version of each node.

    A node that is pinned, or left alone because others are, has that of the artifact that it keeps.
    """
    pinned = store.pins.of(pipeline.name)
    idle = idle_because(pipeline, pinned) if pinned else {}
    kept = {name: pin.ref for name, pin in pinned.items()}
    kept |= {name: ref for name in idle if (ref := store.refs.read(pipeline.name, name)) is not None}
    versions = {}
    for node in pipeline.nodes:
        ref = kept.get(node.name)
        before = None if ref is None else store.key_document(ref.stage, ref.key)
        versions[node.name] = _version(_now(pipeline, node, store) if before is None else before)
    return versions


def _now(pipeline: Pipeline, node: Node, store: Store) -> dict[str, Any]:
    """The key's document; that of the last artifact while a server does not answer that tells a part of it."""
    try:
        return key_document(node, {}, {})
    except UserError:
        ref = store.refs.read(pipeline.name, node.name)
        before = None if ref is None else store.key_document(ref.stage, ref.key)
        return before or {"stage": node.stage.name, "config": node.config.semantic()}


def _version(document: dict[str, Any]) -> str:
    # What is told of the inputs is known when they are.
    config = {name: value for name, value in document["config"].items() if name != FIELD}
    return hash_document({**document, "config": config, "inputs": {}, "sources": {}})
