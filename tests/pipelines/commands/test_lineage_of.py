"""`tunemill lineage --of`: from a dataset to every model that contains it, also when the file has been edited since."""

import json

import pytest
import yaml

from tunemill.pipelines.assets.run import run_pipeline
from tunemill.pipelines.cli import main
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.resources.launcher import in_this_process

MODELS = {"pipeline/trained", "pipeline/merged", "pipeline/quantized"}


def _ask(project, capsys, *arguments, code=0):
    assert main(["lineage", *arguments, "--state", str(project.state)]) == code
    said = capsys.readouterr()
    return json.loads(said.out) if "--json" in arguments and said.out else said.out + said.err


def test_the_models_of_a_file_and_of_its_rows(project, capsys, monkeypatch):
    monkeypatch.chdir(project.folder)
    monkeypatch.setenv("COLUMNS", "250")
    found = _ask(project, capsys, "--of", str(project.folder / "data" / "sums.jsonl"), "--json", code=0)
    # The copy of the project lies elsewhere than it was made: its contents are what is known.
    assert {one["model"] for one in found["models"]} == MODELS
    assert {one["revision"] for one in found["models"]} == {"as it is now"}
    assert {one["rows"] for one in found["models"]} == {20}
    rows = _ask(project, capsys, "--of", "data/sums.jsonl", "--rows", "--json")
    assert {str(one["files"][0]["trained"]) for one in rows["models"]} == {"[[1, 20]]"}
    assert "20 of 20: 1-20" in _ask(project, capsys, "--of", "data/sums.jsonl", "--rows")
    assert "in it" in _ask(project, capsys, "--of", "data/sums.jsonl", "--rows", "3")


def test_an_edited_file_is_known_by_the_contents_that_it_had(project, capsys, monkeypatch):
    monkeypatch.chdir(project.folder)
    path = project.folder / "data" / "sums.jsonl"
    before = _ask(project, capsys, "--of", str(path), "--json")["contents"]
    with path.open("a") as file:
        file.write("\n")
    assert _ask(project, capsys, "--of", str(path), "--json", code=1)["models"] == []
    by_contents = _ask(project, capsys, "--of", before[:12], "--json")
    assert {one["model"] for one in by_contents["models"]} == MODELS
    # At the path that the lineages name, the other revision is found as one.
    recorded = by_contents["models"][0]["path"]
    found = _ask(project, capsys, "--of", recorded, "--json")
    assert {one["contents"] for one in found["models"]} == {before}


@pytest.mark.slow
def test_through_a_model_of_another_pipeline_it_is_in_what_that_was_trained_into(
    project, capsys, monkeypatch
):
    monkeypatch.chdir(project.folder)
    further = {
        **project.config(), "base_model": "asset://pipeline/merged", "reinit_weights": None, "max_steps": 1,
        "datasets": project.config()["datasets"][1:], "quantization": None,
        "pipeline": {"name": "further", "evaluate": []},
    }  # fmt: skip
    (project.folder / "further.yml").write_text(yaml.safe_dump(further))
    run_pipeline(load_pipeline(project.folder / "further.yml"), project.store, launch=in_this_process)
    found = _ask(project, capsys, "--of", "data/sums.jsonl", "--json")
    assert {one["model"] for one in found["models"]} == MODELS | {"further/trained", "further/merged"}
    # Its own rows are in it twice, once by way of the base; and the first pipeline's models know nothing of it.
    own = _ask(project, capsys, "--of", "data/echoes.jsonl", "--json")
    assert {one["model"] for one in own["models"]} == MODELS | {"further/trained", "further/merged"}
    rows = _ask(project, capsys, "--of", "data/sums.jsonl", "--rows", "--json")
    assert {one["model"] for one in rows["models"]} >= {"further/merged", "pipeline/merged"}


def test_what_is_in_no_model_and_what_is_asked_wrongly(project, capsys, monkeypatch):
    monkeypatch.chdir(project.folder)
    said = _ask(project, capsys, "--of", "data/held_out.jsonl", code=1)
    assert "no model in the store was made from it" in said
    assert "name a model" in _ask(project, capsys, code=1)
    assert "name it with --of FILE" in _ask(project, capsys, "pipeline/merged", "--rows", code=1)
    assert "from 1" in _ask(project, capsys, "--of", "data/sums.jsonl", "--rows", "x", code=1)
