"""The UI shows of each artifact the datasets behind it, its columns and its rows."""

import dagster as dg

from tunemill.pipelines.assets.lineage_metadata import lineage_table, lineage_tags, rows_metadata
from tunemill.pipelines.graph.lineage import read_lineage


def _of(project, node):
    ref = project.store.ref("pipeline", node)
    made = project.store.lookup(ref.stage, ref.key)
    return made, read_lineage(made.folder)


def test_a_model_has_a_table_and_tags_of_its_datasets(finished_project):
    _, lineage = _of(finished_project, "merged")
    table = lineage_table(lineage)["lineage"]
    rows = {record.data["dataset"]: record.data for record in table.records}
    assert {name: row["rows"] for name, row in rows.items()} == {
        "pipeline/dataset_sums": 20,
        "pipeline/dataset_echoes": 10,
    }
    assert all(len(row["contents"]) == len(row["digest"]) == 64 for row in rows.values())
    tags = lineage_tags(lineage)
    assert tags["tunemill.contents/pipeline.dataset_sums"] == rows["pipeline/dataset_sums"]["contents"][:12]
    # Dagster takes them.
    dg.AssetMaterialization("a", tags=tags, metadata={"lineage": table})


def test_data_have_columns_and_rows_and_others_have_none(finished_project):
    made, _ = _of(finished_project, "tokenized_sums")
    told = rows_metadata(made.data, made.manifest["metrics"])
    assert {column.name for column in told["dagster/column_schema"].columns} >= {"input_ids", "labels"}
    assert told["dagster/row_count"] == 20
    model, _ = _of(finished_project, "merged")
    assert rows_metadata(model.data, model.manifest["metrics"]) == {}
