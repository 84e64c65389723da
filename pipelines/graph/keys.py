"""The key of a node: one document of everything that goes into its result, and the hash of it."""

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from tunemill.pipelines.config.document import Document
from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.hub_identity import Counting, identify_hub
from tunemill.pipelines.graph.looks import missing_source
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.resources.canonical import SCHEMA
from tunemill.resources.errors import StoreError
from tunemill.resources.identity import StatCache, identify
from tunemill.resources.protocols import HUB, HUB_FILES
from tunemill.resources.redaction import redacted, secrets_in
from tunemill.resources.store import KEY_PARTS
from tunemill.stages.declaration import SourceMark

# What an identity tells beside the contents, by its kind.
TOLD: Mapping[str, tuple[str, ...]] = {HUB_FILES: ("commit",)}
NOT_INSTALLED = "not installed"


def key_document(
    node: Node, inputs: Mapping[str, Sequence[str]], sources: Mapping[str, Sequence[Mapping[str, str]]]
) -> dict[str, Any]:
    """Everything that can change the node's result: `inputs` are digests, `sources` identities."""
    document = {
        "schema": SCHEMA,
        "stage": node.stage.name,
        "version": node.stage.version,
        "config": node.config.semantic(),
        "sources": {field: [keyed(item) for item in items] for field, items in sources.items()},
        "inputs": {name: list(digests) for name, digests in inputs.items()},
        "libraries": {
            **{library: minor_version(library) for library in libraries_of(node)},
            **node.config.used_tools(),
        },
    }
    assert set(document) == KEY_PARTS, "the store explains a key by these parts"
    return document


def identify_sources(node: Node, document: Document, cache: StatCache) -> dict[str, list[dict[str, str]]]:
    """The contents behind the node's sources. Raises ConfigError naming the key of one that is not there."""
    found: dict[str, list[dict[str, str]]] = {}
    for field, names in node.sources.items():
        try:
            revision, token, counting = source_settings(node, field)
            found[field] = [identify_source(name, revision, cache, token, counting) for name in names]
        except StoreError as error:
            raise ConfigError(document.path, [missing_source(node, field, document, str(error))]) from error
    return found


def source_settings(node: Node, field: str) -> tuple[Any, Any, Counting | None]:
    """What the config says of a source: its revision, whether a token is sent, which files of a repository count."""
    return _named_by(node, field, "revision"), _named_by(node, field, "token"), _counting(node, field)


def identify_source(
    name: str,
    revision: str | None,
    cache: StatCache,
    token: bool | None = None,
    counting: Counting | None = None,
) -> dict[str, str]:
    """The identity of one source: of a local file or folder, or of what a URL names, at a revision.

    Of a repository of the Hub see `identify_hub`.
    """
    if "://" not in name:
        return identify(Path(name), cache)
    if name.startswith(HUB):
        return identify_hub(name, revision, cache, token, counting)
    # Only remote sources need the libraries that reach them.
    from tunemill.resources.remote import identify_remote

    try:
        return identify_remote(name)
    except StoreError as error:
        # Without what caused it: the libraries' messages hold the whole URL.
        raise StoreError(redacted(str(error), secrets_in(name, os.environ))) from None


def keyed(identity: Mapping[str, str]) -> dict[str, str]:
    """What of an identity enters the key: of a repository whose files are known, its commit does not."""
    told = TOLD.get(identity["kind"], ())
    return {name: value for name, value in identity.items() if name not in told}


def _named_by(node: Node, field: str, what: str) -> Any:
    """What the config says of a source: the branch, tag or commit (`revision`), whether a `token` is sent."""
    other = getattr(node.config.marked(SourceMark).get(field, SourceMark()), what)
    return None if other is None else getattr(node.config, other)


def _counting(node: Node, field: str) -> Counting | None:
    """Which files of a repository count, as a method of the config says; None where its commit does."""
    mark = node.config.marked(SourceMark).get(field, SourceMark())
    return None if mark.needs is None else Counting(getattr(node.config, mark.needs), mark.card)


def libraries_of(node: Node) -> list[str]:
    """The distributions that shape the node's result: those of the stage, and what its settings use."""
    return sorted({*node.stage.libraries, *node.config.used_libraries()})


def comparable(sources: Mapping[str, Sequence[Mapping[str, str]]]) -> dict[str, list[dict[str, str]]]:
    """What of identities is keyed, without the nonce of those that have none, to see whether anything changed."""
    return {
        field: [{name: value for name, value in keyed(item).items() if name != "nonce"} for item in items]
        for field, items in sources.items()
    }


def key_inputs(node: Node) -> dict[str, tuple[str, ...]]:
    """The upstream names of the inputs that enter the key: what the node's result is made from."""
    deciding = node.config.deciding()
    return {
        name: ups
        for name, ups in node.inputs.items()
        if node.stage.inputs[name].runtime is None or name in deciding
    }


def upstream_of(node: Node) -> list[str]:
    """The nodes (or `asset://` names) that the node's result is made from, each once."""
    return list(dict.fromkeys(up for ups in key_inputs(node).values() for up in ups))


def looked_at_by(node: Node) -> list[str]:
    """The nodes that the node only looks at while it runs, such as held-out rows that are scored beside training.

    They change no result, so that the node neither waits for them nor is downstream of them.
    """
    others = [ups for name, ups in node.inputs.items() if name not in key_inputs(node)]
    return list(dict.fromkeys(up for ups in others for up in ups))


def with_upstream(pipeline: Pipeline, names: Iterable[str], pinned: Collection[str] = ()) -> set[str]:
    """These nodes of a pipeline, and all of its nodes that they are made from.

    What is `pinned` is there already, and needs nothing.
    """
    found = set(names)
    for node in reversed(pipeline.nodes):
        if node.name in found and node.name not in pinned:
            found.update(upstream_of(node))
    return found & {node.name for node in pipeline.nodes}


def minor_version(library: str) -> str:
    """`5.19` for an installed 5.19.2; what is not installed has none, and the stage will say that it needs it."""
    version = whole_version(library)
    return version if version == NOT_INSTALLED else ".".join(version.split("+")[0].split(".")[:2])


@cache
def whole_version(library: str) -> str:
    """`5.19.2+cpu` of an installed distribution, or that it is not installed."""
    try:
        found = distribution(library)
    except PackageNotFoundError:
        return NOT_INSTALLED
    # `version` parses all of a distribution's metadata, which often holds its whole documentation.
    line = re.search(r"^Version: *(\S+)", found.read_text("METADATA") or "", re.MULTILINE)
    return str(line[1] if line else found.version)
