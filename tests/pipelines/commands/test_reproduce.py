"""`reproduce`: a model is made again from the lineage inside its folder, or it is said where it is another one."""

import json
import shutil

import pytest
from support.project import make_project
from support.tiny_model import make_model

from tunemill.pipelines.cli import main
from tunemill.pipelines.graph.keys import identify_sources, key_document
from tunemill.pipelines.graph.lineage import read_lineage
from tunemill.pipelines.graph.rebuilt import is_the_same, pipeline_of, rebuilt, source_now, sources_of
from tunemill.resources.canonical import hash_document
from tunemill.resources.protocols import LINEAGE_FILE


def tell(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def lineage_with(folder, change):
    """Change the text of a folder's lineage, as if it had been made so."""
    file = folder / LINEAGE_FILE
    file.write_text(change(file.read_text()))


@pytest.fixture
def model(project, finished_project, tmp_path):
    """The folder of a merged model outside of any store, made from the files of `project`; no store is left."""
    ref = project.store.ref("pipeline", "merged")
    folder = tmp_path / "model"
    shutil.copytree(project.store.folder(ref.stage, ref.key) / "data", folder)
    lineage_with(folder, lambda text: text.replace(str(finished_project.folder), str(project.folder)))
    shutil.rmtree(project.state)
    return folder


@pytest.mark.parametrize("node", ["merged", "quantized", "evaluation_of_trained", "tokenized_sums"])
def test_a_lineage_holds_all_that_makes_a_key(finished_project, node):
    store = finished_project.store
    ref = store.ref("pipeline", node)
    found = rebuilt(read_lineage(store.folder(ref.stage, ref.key)))
    document = pipeline_of(found, finished_project.yaml).document
    assert [item.full_name for item in found][-1] == f"pipeline/{node}"
    for item in found:
        digests = {name: [edge["digest"] for edge in edges] for name, edges in item.item["inputs"].items()}
        sources = identify_sources(item.node, document, store.stat_cache)
        assert hash_document(key_document(item.node, digests, sources)) == item.item["key"], item.name


def test_a_lineage_of_an_older_version_is_read_too(finished_project):
    store = finished_project.store
    ref = store.ref("pipeline", "merged")
    lineage = read_lineage(store.folder(ref.stage, ref.key))
    configs = [item.node.config.semantic() for item in rebuilt(lineage)]
    for item in (lineage, *lineage["ancestors"].values()):
        del item["given"], item["made_with"]
    assert [item.node.config.semantic() for item in rebuilt(lineage)] == configs


def test_a_changed_dataset_is_told_before_anything_is_made(model, project, capsys, tmp_path):
    with (project.folder / "data" / "sums.jsonl").open("a") as file:
        file.write('{"messages": []}\n')
    code, out, _ = tell(capsys, "reproduce", model, "--state", tmp_path / "new")
    assert code == 1 and "the first difference is at pipeline/dataset_sums:" in out, out
    assert "sums.jsonl holds something else now" in out
    assert not (tmp_path / "new" / "artifacts").exists()
    code, out, _ = tell(capsys, "reproduce", model, "--json")
    assert code == 1 and json.loads(out)["where"] == "pipeline/dataset_sums"
    assert {stage["state"] for stage in json.loads(out)["stages"]} == {"not made"}


def test_missing_data_is_named_and_found_elsewhere(model, project, capsys, tmp_path):
    moved = (project.folder / "data").rename(tmp_path / "elsewhere")
    code, _, err = tell(capsys, "reproduce", model)
    assert code == 2 and "sums.jsonl" in err and "--files FOLDER" in err, err
    code, out, _ = tell(capsys, "reproduce", model, "--json")
    assert code == 2 and json.loads(out)["outcome"] == "cannot"
    found = rebuilt(read_lineage(model), [moved])
    cache = project.store.stat_cache
    for item in found:
        for field, sources in sources_of(item).items():
            for source in sources:
                assert is_the_same(source, source_now(item, field, source["path"], cache)), source


def test_a_flipped_byte_and_a_folder_without_lineage_are_told(model, capsys):
    weights = model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    code, out, _ = tell(capsys, "reproduce", model)
    assert code == 1 and f"the first difference is at {model}:" in out, out
    (model / LINEAGE_FILE).unlink()
    code, _, err = tell(capsys, "reproduce", model)
    assert code == 2 and "was not made by Tunemill" in err


def test_what_this_version_does_not_know_is_missing(model, capsys):
    lineage_with(model, lambda text: text.replace('"stage": "merged"', '"stage": "melted"'))
    code, _, err = tell(capsys, "reproduce", model)
    assert code == 2 and "the stage melted, which this version does not have" in err, err


def test_results_of_others_are_not_taken_for_what_is_made_again(project, capsys):
    ref = project.store.ref("pipeline", "merged")
    folder = project.store.folder(ref.stage, ref.key)
    code, _, err = tell(capsys, "reproduce", folder, "--state", project.state)
    assert code == 1 and "results of pipeline are in it" in err, err


@pytest.mark.slow
def test_what_was_adopted_is_adopted_again(tmp_path, capsys):
    model = make_model(tmp_path / "mine")
    project = make_project(tmp_path / "project", base_model="asset://mine", reinit_weights=None)
    assert tell(capsys, "adopt", model, "--as", "mine", "--state", project.state)[0] == 0
    made = project.run(only={"base_model"})["base_model"].published.data
    code, out, err = tell(capsys, "reproduce", made)
    assert code == 0 and "adopted/mine" in out and "identical to the end" in out, (out, err)
    moved = model.rename(tmp_path / "elsewhere")
    code, _, err = tell(capsys, "reproduce", made)
    assert code == 2 and "adopted/mine was made from" in err, err
    (moved / "config.json").write_text("{}")
    (tmp_path / "files").mkdir()
    moved.rename(tmp_path / "files" / "mine")
    code, out, err = tell(capsys, "reproduce", made, "--files", tmp_path / "files")
    assert code == 1 and "the first difference is at adopted/mine" in out, (out, err)


@pytest.mark.slow
def test_it_is_identical_to_the_end_and_another_setting_is_found_where_it_counts(model, capsys, tmp_path):
    code, out, err = tell(capsys, "reproduce", model, "--state", tmp_path / "new")
    assert code == 0 and "identical to the end: 9 stages" in out, (out, err)
    # The data are there already; only what another rate makes is made.
    lineage_with(model, lambda text: text.replace('"learning_rate": 0.001', '"learning_rate": 0.002'))
    code, out, err = tell(capsys, "reproduce", model, "--state", tmp_path / "new", "--json")
    told = json.loads(out)
    assert code == 1 and told["where"] == "pipeline/trained", (out, err)
    states = {stage["node"]: stage["state"] for stage in told["stages"]}
    assert states.pop("pipeline/trained") == "differs" and states.pop("pipeline/merged") == "not made"
    assert set(states.values()) == {"the same"}
