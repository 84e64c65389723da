"""Every row of a dataset is in the training data, or it is said what left it out and why."""

import json
from pathlib import Path

import pytest
from support.project import chat_row, make_project

from tunemill.pipelines.assets.run import run_pipeline
from tunemill.pipelines.graph.contained import Asked, Contained, asked_for, contents_in
from tunemill.pipelines.graph.lineage import datasets_behind, read_lineage
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.run.row_lineage import count, ranges_of, row_lineages, shown_ranges
from tunemill.resources.folders import remove_tree
from tunemill.resources.launcher import in_this_process
from tunemill.stages.artifacts import RawDataset

ROWS = 20


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Training data of one file: a row is no JSON, one no conversation, one too long; some are held out."""
    project = make_project(
        tmp_path_factory.mktemp("rows") / "project",
        test_datasets=None,
        val_set_size=4,
        pipeline={"bad_rows": "skip"},
    )  # fmt: skip
    path = project.folder / "data" / "sums.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    lines[4], lines[6], lines[8] = "{broken\n", '{"other": 1}\n', chat_row("say a " * 300, "a")
    path.write_text("".join(lines))
    finished = run_pipeline(load_pipeline(project.yaml).data(), project.store, launch=in_this_process)
    return project, {item.node: item.published for item in finished}


def _contained(published, name: str) -> Contained:
    lineage = read_lineage(published.folder)
    item = next(
        one
        for one in lineage["ancestors"].values()
        if one["artifact"] == RawDataset.__name__ and one["node"].endswith(name)
    )
    source = next(one for one in datasets_behind(lineage) if one["node"] == item["node"])
    return Contained(published.folder, lineage, item, source, "as it is now", ())


@pytest.mark.slow
def test_each_row_is_in_it_or_was_left_out_for_a_reason(prepared):
    project, made = prepared
    (file,) = row_lineages(_contained(made["training_data"], "dataset_sums"), project.store)
    assert (file.file, file.unit, file.problem) == ("sums.jsonl", "line", None)
    everything = [*file.trained, *(pair for part in file.dropped for pair in part.ranges)]
    assert ranges_of(n for first, last in everything for n in range(first, last + 1)) == [(1, ROWS)]
    assert sum(last - first + 1 for first, last in everything) == ROWS
    assert "dataset_sums" in file.of(5) and "tokenized_sums" in file.of(7)
    assert "dropped by pipeline/training_data" in file.of(9) and "dropped_too_long 1" in file.of(9)
    assert file.of(1000) == "not read: it is not among the rows that the dataset took"
    other = row_lineages(_contained(made["training_data"], "dataset_echoes"), project.store)[0]
    rows = made["training_data"].manifest["metrics"]["rows"]
    assert count(file.trained) + count(other.trained) == rows
    json.dumps(file.as_json())


@pytest.mark.slow
def test_without_an_artifact_on_the_way_the_rows_cannot_be_followed(prepared):
    project, made = prepared
    one = _contained(made["training_data"], "dataset_sums")
    folder = made["tokenized_sums"].folder
    aside = folder.with_name("aside")
    folder.rename(aside)
    try:
        (file,) = row_lineages(one, project.store)
    finally:
        remove_tree(folder)
        aside.rename(folder)
    assert "pipeline/tokenized_sums is no longer in the store" in file.problem == file.of(1)


def test_a_source_is_known_by_contents_or_by_its_path():
    asked = Asked("/data/a.jsonl", "abc", None)
    assert asked.matches({"path": "/elsewhere", "sha256": "abc"}) == "as it is now"
    assert asked.matches({"path": "/data/a.jsonl", "sha256": "def"}) == "another revision"
    assert asked.matches({"path": "/data", "kind": "folder", "sha256": "def"}) == "another revision"
    assert asked.matches({"path": "/data/b.jsonl", "sha256": "def"}) is None
    assert Asked("x", None, "abcdef").matches({"path": "/y", "commit": "abcdef12"}) == "by contents"
    assert contents_in({"path": "/y"}) is None and Path(asked.name).name == "a.jsonl"


@pytest.mark.parametrize("name", ["owner/rows", "hf://datasets/owner/rows"])
def test_a_dataset_of_the_hub_is_named_as_in_a_yaml(name, project):
    asked = asked_for(name, project.store.stat_cache)
    assert asked.matches({"path": "hf://datasets/owner/rows", "commit": "abc"}) == "another revision"
    assert asked.matches({"path": "hf://datasets/owner/others", "commit": "abc"}) is None


def test_ranges():
    assert ranges_of([3, 1, 2, 7]) == [(1, 3), (7, 7)]
    assert shown_ranges([(1, 3), (7, 7)]) == "1-3, 7" and shown_ranges([]) == "none"
