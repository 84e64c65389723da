"""Which data and which settings made an artifact: written into every artifact, readable from it alone."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunemill.pipelines.graph import Node
from tunemill.pipelines.keys import key_inputs
from tunemill.pipelines.plan import Resolved
from tunemill.resources.store import Published
from tunemill.stages.artifacts import LINEAGE_FILE, RawDataset


def lineage_of(
    node: Node, resolved: Resolved, digest: str, facts: Mapping[str, Any], inputs: Mapping[str, Published]
) -> dict[str, Any]:
    """The artifact's own facts and, below `inputs`, the same of everything it was made from.

    Inputs that cannot change the result (held-out rows that only watch training) are no part of its making.
    """
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
        "inputs": {
            name: [json.loads((inputs[upstream].data / LINEAGE_FILE).read_text()) for upstream in upstreams]
            for name, upstreams in key_inputs(node).items()
        },
    }


def read_lineage(model: Path) -> dict[str, Any]:
    """The lineage inside an artifact's data folder, or a copy of it, or the artifact folder around it."""
    for candidate in (model / LINEAGE_FILE, model / "data" / LINEAGE_FILE):
        if candidate.is_file():
            return dict(json.loads(candidate.read_text()))
    raise FileNotFoundError(f"{model}: there is no {LINEAGE_FILE} in it; it was not made by Tunemill")


def datasets_behind(lineage: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every dataset below a lineage, once: node, path, content hash, rows."""
    seen: set[str] = set()
    pending = [lineage]
    while pending:
        item = pending.pop(0)
        if item["artifact"] == RawDataset.__name__ and item["key"] not in seen:
            seen.add(item["key"])
            facts = {"node": item["node"], "rows": item["metrics"].get("rows"), "digest": item["digest"]}
            yield from ({**facts, **source} for sources in item["sources"].values() for source in sources)
        pending += [upstream for upstreams in item["inputs"].values() for upstream in upstreams]
