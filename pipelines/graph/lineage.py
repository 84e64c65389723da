"""Which data and which settings made an artifact: written into every artifact, readable from it alone."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunemill.pipelines.graph.keys import key_inputs
from tunemill.pipelines.graph.nodes import Node
from tunemill.pipelines.graph.plan import Resolved
from tunemill.resources.canonical import SHORT
from tunemill.resources.errors import StoreError
from tunemill.resources.folders import read_json
from tunemill.resources.protocols import LINEAGE_FILE
from tunemill.resources.store import Published
from tunemill.stages.artifacts import RawDataset


def lineage_of(
    node: Node, resolved: Resolved, digest: str, facts: Mapping[str, Any], inputs: Mapping[str, Published]
) -> dict[str, Any]:
    """The artifact's own facts and, by key below `ancestors`, those of everything it was made from.

    Inputs that cannot change the result (held-out rows that only watch training) are no part of its making.
    """
    keyed = key_inputs(node)
    ancestors: dict[str, Any] = {}
    for upstream in (inputs[name] for names in keyed.values() for name in names):
        its = lineage_in(upstream.data / LINEAGE_FILE)
        ancestors |= its.pop("ancestors") | {its["key"]: its}
    return {
        "node": f"{facts['pipeline']}/{node.name}",
        "stage": node.stage.name,
        "artifact": node.stage.output.__name__,
        "version": node.stage.version,
        "key": resolved.key,
        "digest": digest,
        "config": facts["config"],
        "sources": {
            name: [
                {"path": path, **identity}
                for path, identity in zip(paths, resolved.document["sources"][name], strict=True)
            ]
            for name, paths in facts["sources"].items()
        },
        "libraries": resolved.document["libraries"],
        "host": facts["host"],
        "started": facts["started"],
        "seconds": facts["seconds"],
        "metrics": facts["metrics"],
        "inputs": {name: facts["inputs"][name] for name in keyed},
        "ancestors": ancestors,
    }


def read_lineage(model: Path) -> dict[str, Any]:
    """The lineage inside an artifact's data folder, or a copy of it, or the artifact folder around it."""
    for candidate in (model / LINEAGE_FILE, model / "data" / LINEAGE_FILE):
        if candidate.is_file():
            return lineage_in(candidate)
    raise FileNotFoundError(f"{model}: there is no {LINEAGE_FILE} in it; it was not made by Tunemill")


def lineage_in(file: Path) -> dict[str, Any]:
    """The lineage that a file holds. Raises StoreError where it is damaged."""
    found = read_json(file)
    if not isinstance(found, dict) or not {"node", "key", "ancestors", "inputs", "sources"} <= set(found):
        raise StoreError(
            f"{file} is damaged; `tunemill cache verify` sets its artifact aside, and the next run computes it again"
        )
    return found


def datasets_behind(lineage: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every dataset behind a lineage: node, path, identity (see `contents_of`), rows."""
    for item in (lineage, *lineage["ancestors"].values()):
        if item["artifact"] == RawDataset.__name__:
            facts = {"node": item["node"], "rows": item["metrics"].get("rows"), "digest": item["digest"]}
            yield from ({**facts, **source} for sources in item["sources"].values() for source in sources)


def contents_of(identity: Mapping[str, Any]) -> str:
    """What was in a source, in a few letters: a hash, a commit or a server's checksum; nothing says it of all."""
    for name in ("sha256", "commit", "checksum"):
        if identity.get(name):
            return str(identity[name])[:SHORT]
    return "not known"
