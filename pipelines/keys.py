"""The key of a node: one document of everything that goes into its result, and the hash of it."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

from tunemill.pipelines.document import Document, spell
from tunemill.pipelines.graph import Node
from tunemill.pipelines.problems import ConfigError, Problem
from tunemill.resources.canonical import SCHEMA
from tunemill.resources.errors import StoreError
from tunemill.resources.identity import StatCache, identify


def key_document(
    node: Node, inputs: Mapping[str, Sequence[str]], sources: Mapping[str, Sequence[Mapping[str, str]]]
) -> dict[str, Any]:
    """Everything that can change the node's result: `inputs` are digests, `sources` identities."""
    return {
        "schema": SCHEMA,
        "stage": node.stage.name,
        "version": node.stage.version,
        "config": node.config.semantic(),
        "sources": {field: [dict(item) for item in items] for field, items in sources.items()},
        "inputs": {name: list(digests) for name, digests in inputs.items()},
        "libraries": {library: minor_version(library) for library in node.stage.libraries},
    }


def identify_sources(node: Node, document: Document, cache: StatCache) -> dict[str, list[dict[str, str]]]:
    """The contents behind the node's sources. Raises ConfigError naming the key of one that is not there."""
    found: dict[str, list[dict[str, str]]] = {}
    for field, paths in node.sources.items():
        try:
            found[field] = [identify(path, cache) for path in paths]
        except StoreError as error:
            raise ConfigError(document.path, [_missing_source(node, field, document, str(error))]) from error
    return found


def key_inputs(node: Node) -> dict[str, tuple[str, ...]]:
    """The upstream names of the inputs that enter the key."""
    return {name: ups for name, ups in node.inputs.items() if node.stage.inputs[name].runtime is None}


@cache
def minor_version(library: str) -> str:
    """`5.19` for an installed 5.19.2."""
    return ".".join(version(library).split("+")[0].split(".")[:2])


def _missing_source(node: Node, field: str, document: Document, reason: str) -> Problem:
    place = node.places[field]
    reason += (
        ". Names on the Hugging Face Hub are not resolved yet: fetch what you need and give its local path"
    )
    return Problem(spell(place), *document.position(place), "value", reason)
