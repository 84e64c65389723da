"""`tunemill lineage`: whose nodes it names, which settings it shows, what it says of what is damaged or wrong."""

import json
import os
import shutil

import pytest
import yaml
from support.project import Project

from tunemill.pipelines.assets.run import run_pipeline
from tunemill.pipelines.cli import main
from tunemill.pipelines.graph.lineage_names import named_by_refs
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.resources.folders import remove_tree
from tunemill.resources.launcher import in_this_process

LINEAGE = "tunemill_lineage.json"


@pytest.fixture(scope="module")
def two_pipelines(finished_project, tmp_path_factory):
    """`pipeline`, and `other`, which trains on two copies of a dataset of the first, at another learning rate."""
    folder = tmp_path_factory.mktemp("lineage") / "project"
    shutil.copytree(finished_project.folder, folder, symlinks=True)
    project = Project(folder, folder / ".tunemill")
    for name in ("words", "again"):
        shutil.copy(folder / "data" / "echoes.jsonl", folder / "data" / f"{name}.jsonl")
    datasets = [{"path": f"data/{name}.jsonl", "type": "chat_template"} for name in ("words", "again")]
    config = {**project.config(), "datasets": datasets, "learning_rate": 0.005, "output_dir": "others"}
    config |= {"pipeline": {"name": "other", "evaluate": []}}
    (folder / "other.yml").write_text(yaml.safe_dump(config))
    finished = run_pipeline(load_pipeline(folder / "other.yml"), project.store, launch=in_this_process)
    states = {item.node: item.state for item in finished}
    assert states["tokenized_words"] == states["base_model"] == "cached" and states["quantized"] == "computed"
    return project


@pytest.fixture
def store(two_pipelines, tmp_path):
    """A copy of both, to break."""
    shutil.copytree(two_pipelines.folder, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project", tmp_path / "project" / ".tunemill")


@pytest.fixture
def ask(capsys, monkeypatch):
    def call(project, what, *options, code=0):
        monkeypatch.chdir(project.folder)
        assert main(["lineage", str(what), "--state", str(project.state), *options]) == code
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return json.loads(said.out) if "--json" in options and not code else said.out + said.err

    return call


def pipelines_in(document):
    return {item["node"].partition("/")[0] for item in [document, *document["ancestors"].values()]}


def artifact(project, node):
    ref = project.store.refs.read(*node.split("/"))
    return project.store.folder(ref.stage, ref.key)


def edited(project, node, edit):
    """A copy of an artifact's data with another lineage file, in no store."""
    copy = project.folder / "copy"
    shutil.copytree(artifact(project, node) / "data", copy)
    document = json.loads((copy / LINEAGE).read_text())
    edit(document)
    copy.chmod(0o755)
    (copy / LINEAGE).unlink()
    (copy / LINEAGE).write_text(json.dumps(document))
    return copy


@pytest.mark.parametrize("what", ["other/quantized", "others/quantized", "asset://other/quantized"])
def test_a_pipeline_is_told_by_its_own_nodes(two_pipelines, ask, what):
    document = ask(two_pipelines, what, "--json")
    assert document["node"] == "other/quantized" and pipelines_in(document) == {"other"}
    by = {item["node"]: item.get("computed_by") for item in document["ancestors"].values()}
    assert by["other/tokenizer"] == "pipeline/tokenizer" and by["other/trained"] is None
    tree = ask(two_pipelines, what)
    assert "computed by pipeline/tokenizer" in tree
    # The same contents twice are one artifact and two nodes.
    assert "other/tokenized_words" in tree and "other/tokenized_again" in tree
    assert "pipeline/" not in tree.replace("computed by pipeline/", "")


def test_a_shared_artifact_is_told_by_the_pipeline_that_is_asked_about(two_pipelines, ask):
    for name, other in (("other", "pipeline"), ("pipeline", "other")):
        document = ask(two_pipelines, f"{name}/base_model", "--json")
        assert document["node"] == f"{name}/base_model" and pipelines_in(document) == {name}
        assert document["also"] == [f"{other}/base_model"]
        assert f"the same as {other}/base_model" in ask(two_pipelines, f"{name}/base_model")


def test_a_model_that_was_given_away_names_its_own_pipeline(two_pipelines, ask, tmp_path):
    shutil.copytree(artifact(two_pipelines, "other/merged") / "data", tmp_path / "model")
    elsewhere = Project(tmp_path, tmp_path / "empty")
    document = ask(elsewhere, tmp_path / "model", "--json")
    assert pipelines_in(document) == {"other"} and document["problem"] is None
    assert {item["node"] for item in document["datasets"]} == {"other/dataset_words"}


def test_settings_are_shown_unless_they_are_defaults_or_change_nothing(two_pipelines, ask):
    document = ask(two_pipelines, "other/trained", "--json")
    assert document["settings"].items() >= {"learning_rate": 0.005, "lora_r": 4, "max_steps": 4}.items()
    assert not {"weight_decay", "logging_steps", "eval_steps"} & set(document["settings"])
    assert document["config"]["weight_decay"] == 0.0
    told = {item["node"]: item["settings"] for item in document["ancestors"].values()}
    assert told["other/tokenizer"] == {"chat_template": "tokenizer_default"}
    tree = ask(two_pipelines, "other/trained")
    assert "learning_rate: 0.005" in tree and "weight_decay" not in tree
    assert "path: " in tree and "echoes.jsonl" in tree


def test_what_is_gone_or_damaged_in_the_store_is_named(store, ask):
    remove_tree(artifact(store, "other/training_data"))
    weights = artifact(store, "other/trained") / "data" / "adapter_model.safetensors"
    weights.chmod(0o644)
    os.truncate(weights, 10)
    (artifact(store, "other/base_model") / "manifest.json").unlink()
    manifest = artifact(store, "other/merged") / "manifest.json"
    manifest.chmod(0o644)
    manifest.write_text("{}")
    problems = {
        item["node"]: item["problem"]
        for item in ask(store, "other/quantized", "--json")["ancestors"].values()
    }
    tree = ask(store, "other/quantized")
    for node, problem in {
        "training_data": "no longer in the store",
        "trained": "a stored file is missing or cut short: data/adapter_model.safetensors",
        "base_model": "no longer in the store",
        "merged": "its manifest is damaged",
    }.items():
        assert problems[f"other/{node}"] == problem and problem in tree
    assert problems["other/tokenizer"] is None
    # What is asked about itself, too.
    assert ask(store, "other/trained", "--json")["problem"] == problems["other/trained"]
    said = ask(store, "other/training_data", code=1)
    assert (
        said.startswith("other/training_data: it is gone from the store") and "run its pipeline again" in said
    )


def test_what_the_file_does_not_say_is_named(store, ask):
    keys = {}

    def edit(document):
        ancestors = document["ancestors"]
        keys.update({item["node"].partition("/")[2]: key for key, item in ancestors.items()})
        del ancestors[keys["tokenizer"]]
        ancestors[keys["training_data"]] = ["no lineage"]
        ancestors[keys["base_model"]] |= {"config": 3, "sources": {"base_model": [7]}}
        del ancestors[keys["base_model"]]["started"]

    copy = edited(store, "other/merged", edit)
    document, tree = ask(store, copy, "--json"), ask(store, copy)
    assert {keys["tokenizer"], keys["training_data"]} == set(document["not_recorded_ancestors"])
    assert document["ancestors"][keys["base_model"]]["problem"] == "not recorded: config, started, sources"
    assert "not recorded: config, started, sources" in tree
    assert f"other/training_data  nothing is recorded of it ({keys['training_data'][:12]})" in tree
    assert f"other/tokenizer  nothing is recorded of it ({keys['tokenizer'][:12]})" in tree


@pytest.mark.parametrize(
    "edit",
    [
        lambda document: document.pop("node"),
        lambda document: document.update(inputs=[]),
        lambda document: document.update(inputs={"model": [{"node": "x"}]}),
        lambda document: document.update(ancestors=3),
    ],
)
def test_a_file_that_is_no_lineage_is_named(store, ask, edit):
    copy = edited(store, "other/merged", edit)
    assert ask(store, copy, code=1).startswith(f"{copy / LINEAGE} is damaged")


def test_an_artifact_is_found_by_everything_that_names_it(two_pipelines, ask):
    folder = artifact(two_pipelines, "other/merged")
    digest = json.loads((folder / "manifest.json").read_text())["digest"]
    for what in (
        "others/merged/config.json", f"others/merged/{LINEAGE}", folder, folder / "data", folder / "logs",
        digest, digest[:12], folder.name[:12],
    ):  # fmt: skip
        assert ask(two_pipelines, what, "--json")["node"] == "other/merged", what
    assert ask(two_pipelines, "dataset_sums", "--json")["node"] == "pipeline/dataset_sums"


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("other/quantised", "did you mean other/quantized?"),
        ("othr/merged", "did you mean other/merged?"),
        ("quantised", "did you mean other/quantized or pipeline/quantized?"),
        ("other/evaluation/merged", "did you mean"),
        ("merged", "2 pipelines have such a node; say which: other/merged, pipeline/merged"),
        ("other", "other is a pipeline; name one of its nodes: other/base_model"),
        ("others", "others holds several results; name one: others/merged, others/quantized, others/trained"),
        ("other.yml", "is no result; name a node of the pipeline, such as other/merged"),
        ("data", "it was not made by Tunemill"),
        ("data/sums.jsonl", "it was not made by Tunemill"),
        ("nowhere", "neither a file or folder nor a node"),
        ("deadbeef", "has such a digest or key"),
        ("../../x", "neither a file or folder nor a node"),
        ("a\0b", "neither a file or folder nor a node"),
        ("x" * 5000, "neither a file or folder nor a node"),
        ("", "neither a file or folder nor a node"),
    ],
)
def test_what_names_nothing_is_answered_with_what_there_is(two_pipelines, ask, what, message):
    assert message in ask(two_pipelines, what, code=1)


def test_a_link_to_what_was_pruned_and_an_empty_store_say_so(store, ask):
    (store.folder / "gone").symlink_to(artifact(store, "other/merged") / "data")
    remove_tree(artifact(store, "other/merged"))
    assert "gone is a link to" in ask(store, "gone", code=1)
    empty = Project(store.folder, store.folder / "nothing")
    assert "nothing has been computed in" in ask(empty, "other/merged", code=1)


def test_what_another_pipeline_gave_keeps_that_pipelines_name():
    """`b` starts from `a/merged`; `c`, which computed the base model first, called it otherwise."""
    edges = {
        "base": [{"node": "base_model", "key": "1"}],
        "merged": [{"node": "asset://a/merged", "key": "2"}],
    }
    lineage = {
        "node": "c/trained", "key": "0", "inputs": {"base_model": edges["base"]},
        "ancestors": {
            "1": {"node": "c/base_model", "key": "1", "inputs": {"upstream": edges["merged"]}},
            "2": {"node": "a/merged", "key": "2", "inputs": {"adapter": [{"node": "trained", "key": "3"}]}},
            "3": {"node": "d/trained", "key": "3", "inputs": {}},
        },
    }  # fmt: skip
    nodes = {"b": {"0": ["trained"], "1": ["base_model"]}, "a": {"2": ["merged"]}}
    named = named_by_refs(nodes, "b/trained", lineage)
    ancestors = named["ancestors"]
    assert [named["node"], *(ancestors[key]["node"] for key in "123")] == [
        "b/trained", "b/base_model", "a/merged", "d/trained"
    ]  # fmt: skip
    assert named["computed_by"] == "c/trained" and "computed_by" not in ancestors["2"]
