"""What the Dagster UI shows of a materialization: figures, tables, plots and the data behind it."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from tunemill.pipelines.assets.lineage_metadata import lineage_table, rows_metadata
from tunemill.pipelines.assets.markdown import markdown_table
from tunemill.pipelines.graph.lineage import contents_of, datasets_behind, lineage_in
from tunemill.pipelines.graph.lineage_names import named_by_graph
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.pipelines.run.evaluated import intervals_of
from tunemill.pipelines.run.materialize import Result
from tunemill.pipelines.run.pictures import picture
from tunemill.resources.protocols import LINEAGE_FILE
from tunemill.stages.plot_svg import plot_svg

# What is shown of an interval.
SURE = ("low", "high", "confidence", "rows", "method")


def materialization_metadata(pipeline: Pipeline, node: Node, result: Result) -> dict[str, Any]:
    """Metadata of one materialization."""
    published, manifest = result.published, result.published.manifest
    lineage = lineage_in(published.data / LINEAGE_FILE)
    # What is kept whatever the graph says was made from what it says itself.
    if result.state not in ("pinned", "left alone"):
        lineage = named_by_graph(pipeline, node, lineage)
    # What people look for comes first, what identifies it last.
    metadata: dict[str, Any] = {
        name: value for name, value in manifest["metrics"].items() if value is not None
    }
    if sure := intervals_of(node.stage, published.data):
        shown = [[name, manifest["metrics"].get(name), *map(one.get, SURE)] for name, one in sure.items()]
        metadata["How sure the scores are"] = dg.MetadataValue.md(
            markdown_table(["metric", "value", *SURE], shown)
        )
    for table in manifest["tables"]:
        metadata[table["title"]] = dg.MetadataValue.md(markdown_table(table["columns"], table["rows"]))
    for plot in manifest["plots"]:
        metadata[plot["title"]] = dg.MetadataValue.md(picture(plot_svg(plot), plot["title"]))
    return metadata | {
        "datasets": dg.MetadataValue.md(_datasets_table(lineage)),
        **lineage_table(lineage),
        **rows_metadata(published.data, manifest["metrics"]),
        "config": dg.MetadataValue.json(dict(manifest["config"])),
        "state": result.state,
        "reasons": "; ".join(result.reasons) or str(result.pin or result.state),
        **_pins(result),
        "seconds": round(result.seconds, 3),
        "computed_in_seconds": float(manifest["seconds"]),
        "bytes": sum(entry["bytes"] for entry in manifest["files"].values()),
        "path": dg.MetadataValue.path(str(published.data)),
        "digest": published.digest,
        "key": published.key,
    }


def _pins(result: Result) -> dict[str, Any]:
    """Since when and why the node is pinned, and which of its inputs were when it was computed."""
    edges = [edge for edges in result.published.manifest["inputs"].values() for edge in edges]
    inputs = {edge["node"]: edge["pinned"] for edge in edges if "pinned" in edge}
    own = {} if result.pin is None else {"pinned": dg.MetadataValue.json(result.pin.as_json())}
    return own | ({"pinned_inputs": dg.MetadataValue.json(inputs)} if inputs else {})


def _datasets_table(lineage: Mapping[str, Any]) -> str:
    rows = [
        [item["node"], item["path"], item["rows"], contents_of(item)] for item in datasets_behind(lineage)
    ]
    return markdown_table(["dataset", "file", "rows", "contents"], rows) if rows else "none"
