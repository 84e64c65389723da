"""Which data and which settings made an artifact: written into every artifact, readable from it alone."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunemill.pipelines.graph.keys import key_inputs, libraries_of
from tunemill.pipelines.graph.lineage_names import named_by_graph
from tunemill.pipelines.graph.machine_facts import made_with
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.pipelines.graph.resolved import Resolved
from tunemill.resources.canonical import SHORT
from tunemill.resources.errors import StoreError
from tunemill.resources.folders import read_json
from tunemill.resources.protocols import LINEAGE_FILE
from tunemill.resources.store import Published
from tunemill.stages.artifacts import RawDataset
from tunemill.stages.declaration import SOURCE_MARKS, RuntimeMark
from tunemill.stages.named import stage_named

# What every lineage says of an artifact, beside its node, key and inputs; with what stands for it where it does not.
FACTS: Mapping[str, Any] = {
    "stage": "",
    "artifact": "",
    "digest": "",
    "config": {},
    "sources": {},
    "metrics": {},
    "started": "",
    "seconds": 0.0,
}


def lineage_of(
    pipeline: Pipeline,
    node: Node,
    resolved: Resolved,
    digest: str,
    facts: Mapping[str, Any],
    inputs: Mapping[str, Published],
) -> dict[str, Any]:
    """The artifact's own facts and, by key below `ancestors`, those of everything it was made from.

    Inputs that cannot change the result (held-out rows that only watch training) are no part of its making. All
    nodes are the pipeline's own, also where another one has computed their artifacts: it is named in `computed_by`.
    """
    keyed = key_inputs(node)
    ancestors: dict[str, Any] = {}
    for upstream in (inputs[name] for names in keyed.values() for name in names):
        its = lineage_in(upstream.data / LINEAGE_FILE)
        ancestors |= its.pop("ancestors") | {its["key"]: its}
    made = {
        "node": f"{pipeline.name}/{node.name}",
        "stage": node.stage.name,
        "artifact": node.stage.output.__name__,
        "version": node.stage.version,
        "key": resolved.key,
        "digest": digest,
        "config": facts["config"],
        "sources": {
            name: [
                {"path": path, **identity}
                for path, identity in zip(paths, resolved.sources[name], strict=True)
            ]
            for name, paths in facts["sources"].items()
        },
        "libraries": resolved.document["libraries"],
        # What `reproduce` builds the node of, and what it compares where the result is another one.
        "given": node.config.model_dump(mode="json", exclude_unset=True),
        "made_with": made_with(libraries_of(node), facts.get("environment", {})),
        "host": facts["host"],
        "started": facts["started"],
        "seconds": facts["seconds"],
        "metrics": facts["metrics"],
        "inputs": {name: facts["inputs"][name] for name in keyed},
        "ancestors": ancestors,
    }
    return named_by_graph(pipeline, node, made)


def read_lineage(model: Path) -> dict[str, Any]:
    """The lineage inside an artifact's data folder, or a copy of it, or the artifact folder around it."""
    for candidate in (model / LINEAGE_FILE, model / "data" / LINEAGE_FILE):
        if candidate.is_file():
            return lineage_in(candidate)
    raise FileNotFoundError(f"{model}: there is no {LINEAGE_FILE} in it; it was not made by Tunemill")


def lineage_in(file: Path) -> dict[str, Any]:
    """The lineage that a file holds. Raises StoreError where it is damaged.

    Of an ancestor that is no lineage there is nothing below `ancestors`. `not_recorded` names the facts that are
    missing, as in what an older version has written.
    """
    found = read_json(file)
    if not _is_lineage(found) or not isinstance(found.get("ancestors"), dict):
        raise StoreError(
            f"{file} is damaged; `tunemill cache verify` sets its artifact aside, and the next run computes it again"
        )
    ancestors = {
        key: _completed(item)
        for key, item in found["ancestors"].items()
        if _is_lineage(item) and item["key"] == key
    }
    return {**_completed(found), "ancestors": ancestors}


def datasets_behind(lineage: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every dataset behind a lineage: node, path, identity (see `contents_of`), rows."""
    for item in (lineage, *lineage["ancestors"].values()):
        if item["artifact"] == RawDataset.__name__:
            facts = {"node": item["node"], "rows": item["metrics"].get("rows"), "digest": item["digest"]}
            yield from ({**facts, **source} for sources in item["sources"].values() for source in sources)


def settings_of(item: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that shaped an artifact, as the YAML calls them, without those at today's defaults.

    Settings that change no result are left out, and so are sources: what counts of them is their contents.
    """
    stage = stage_named(item["stage"])
    if stage is None:
        return dict(item["config"])
    config = stage.config
    left_out = {name for mark in (RuntimeMark, *SOURCE_MARKS) for name in config.marked(mark)}
    names = {field: key for key, field in config.top_keys().items()}
    defaults = config.defaults()
    return {
        names.get(field, field): value
        for field, value in config.as_keys(item["config"]).items()
        if field not in left_out and not (field in defaults and defaults[field] == value)
    }


def contents_of(identity: Mapping[str, Any]) -> str:
    """What was in a source, in a few letters: a hash, a commit or a server's checksum; nothing says it of all."""
    for name in ("commit", "sha256", "checksum"):
        if identity.get(name):
            return str(identity[name])[:SHORT]
    return "not known"


def _is_lineage(item: Any) -> bool:
    """Whether an artifact, its node and its inputs are named."""
    if not isinstance(item, dict) or not isinstance(item.get("inputs"), dict):
        return False
    lists = list(item["inputs"].values())
    texts = [item.get("node"), item.get("key")]
    if not all(isinstance(edges, list) for edges in lists):
        return False
    for edge in (edge for edges in lists for edge in edges):
        texts += [edge.get("node"), edge.get("key")] if isinstance(edge, dict) else [None]
    return all(isinstance(text, str) and text for text in texts)


def _completed(item: Mapping[str, Any]) -> dict[str, Any]:
    """The item with all facts, and the names of those that it did not have."""
    bad = [name for name, stand_in in FACTS.items() if not _is_like(item.get(name), stand_in)]
    if "sources" not in bad and not all(_are_identities(source) for source in item["sources"].values()):
        bad.append("sources")
    return {**item, **{name: FACTS[name] for name in bad}, **({"not_recorded": bad} if bad else {})}


def _is_like(value: Any, stand_in: Any) -> bool:
    kinds = (int, float) if isinstance(stand_in, float) else type(stand_in)
    return isinstance(value, kinds) and not isinstance(value, bool)


def _are_identities(sources: Any) -> bool:
    return isinstance(sources, list) and all(
        isinstance(source, dict) and isinstance(source.get("path"), str) for source in sources
    )
