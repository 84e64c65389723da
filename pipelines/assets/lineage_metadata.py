"""What Dagster shows of an artifact's data: the datasets behind it with their digests, its columns, its rows."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from tunemill.pipelines.graph.contained import contents_in
from tunemill.pipelines.graph.lineage import datasets_behind, lineage_in
from tunemill.resources.canonical import SHORT
from tunemill.resources.protocols import LINEAGE_FILE
from tunemill.resources.store import Published
from tunemill.stages.artifacts import RawDataset

# Dagster's rule for the part of a tag's key behind the slash.
LONGEST_TAG = 63


def lineage_table(lineage: Mapping[str, Any]) -> dict[str, Any]:
    """`lineage`: each dataset behind an artifact, with its path, contents, digest and rows; nothing without any."""
    records = [
        dg.TableRecord(
            {
                "dataset": item["node"],
                "path": item["path"],
                "contents": contents_in(item) or "not known",
                "digest": item["digest"],
                "rows": -1 if item["rows"] is None else int(item["rows"]),
            }
        )
        for item in datasets_behind(lineage)
    ]
    return {"lineage": dg.MetadataValue.table(records)} if records else {}


def tags_of(published: Published) -> dict[str, str]:
    """The tags of an artifact's lineage."""
    return lineage_tags(lineage_in(published.data / LINEAGE_FILE))


def lineage_tags(lineage: Mapping[str, Any]) -> dict[str, str]:
    """Tags of a materialization by which those with a dataset's contents are found: `tunemill.contents/<node>`."""
    return {
        f"tunemill.contents/{item['node'].replace('/', '.')[:LONGEST_TAG]}": _tag_value(item)
        for item in datasets_behind(lineage)
    }


def _tag_value(item: Mapping[str, Any]) -> str:
    """The first letters of contents, without what a tag cannot hold."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", (contents_in(item) or "not_known")[:SHORT])


def rows_metadata(data: Path, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of an artifact of rows, and how many rows it has."""
    path = RawDataset(data).rows
    if not path.is_file():
        return {}
    # Only where there are rows is it needed.
    import pyarrow as pa

    with pa.ipc.open_file(pa.memory_map(str(path))) as reader:
        schema = reader.schema
    columns = [
        dg.TableColumn(
            field.name, str(field.type), constraints=dg.TableColumnConstraints(nullable=field.nullable)
        )
        for field in schema
    ]
    count = {"dagster/row_count": int(metrics["rows"])} if isinstance(metrics.get("rows"), int) else {}
    return {"dagster/column_schema": dg.TableSchema(columns), **count}
