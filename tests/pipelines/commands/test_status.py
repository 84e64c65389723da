"""`status` compares what the store has with what each pipeline's YAML asks for now."""

import json

import pytest
import yaml

from tunemill.pipelines.cli import main
from tunemill.resources.refs import Ref


@pytest.fixture
def status(project, capsys):
    """Call `status --json`; the nodes by name, and what is said of pipelines."""

    def call(*names: str, code: int = 0):
        assert main(["status", "--json", "--state", str(project.state), *names]) == code
        said = json.loads(capsys.readouterr().out)
        return {node["node"]: node for node in said["nodes"]}, said["problems"]

    return call


def test_after_a_run_every_node_is_current(project, status):
    nodes, problems = status()
    assert {node["state"] for node in nodes.values()} == {"current"} and not problems
    assert set(nodes) == set(project.plan())


def test_an_edit_makes_stale_what_plan_would_run_and_says_why(project, status):
    project.edit(learning_rate=0.01)
    nodes, _ = status()
    stale = {name for name, node in nodes.items() if node["state"] == "stale"}
    assert stale == {name for name, item in project.plan().items() if item.state == "run"}
    assert "trained" in stale and "tokenized_sums" not in stale
    assert (
        "learning_rate" in nodes["trained"]["why"] and "waits on upstream trained" in nodes["merged"]["why"]
    )


def test_contents_of_a_source_count_too(project, status):
    rows = project.folder / "data" / "echoes.jsonl"
    rows.write_text(rows.read_text().replace("say a", "say A"))
    nodes, _ = status()
    assert nodes["dataset_echoes"]["state"] == "stale" and nodes["dataset_sums"]["state"] == "current"


def test_nodes_that_the_yaml_no_longer_has_and_nodes_that_have_never_run(project, status):
    config = project.config()
    del config["quantization"]
    config["datasets"][1]["path"] = "data/held_out.jsonl"
    project.yaml.write_text(yaml.safe_dump(config))
    nodes, _ = status()
    for name in ("quantized", "evaluation_of_quantized", "dataset_echoes"):
        assert nodes[name]["state"] == "not in the YAML" and nodes[name]["digest"]
    project.edit(pipeline={"evaluate": ["base"]}, quantization={"weight_dtype": "int8"})
    (project.state / "refs" / "pipeline" / "quantized.json").unlink()
    nodes, _ = status()
    assert nodes["quantized"]["state"] == "never computed" and nodes["quantized"]["digest"] is None


@pytest.mark.slow
def test_a_result_that_is_in_the_store_under_another_key_is_stale_until_it_is_taken(project, status):
    project.edit(learning_rate=0.01)
    project.run()
    project.edit(learning_rate=0.001)
    nodes, _ = status()
    assert nodes["trained"]["state"] == "stale" and "run points to it" in nodes["trained"]["why"]
    project.run()
    nodes, _ = status()
    assert nodes["trained"]["state"] == "current"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda project: project.yaml.unlink(), "no such file"),
        (lambda project: project.yaml.write_text("base_model: [\n"), "pipeline.yml:"),
        (lambda project: project.edit(learning_rat=1), "learning_rat"),
        (lambda project: project.edit(pipeline={"name": "other"}), "is the pipeline other now"),
        (lambda project: (project.folder / "data" / "sums.jsonl").unlink(), "sums.jsonl"),
        (lambda project: (project.state / "pipelines" / "pipeline.json").unlink(), "older versions"),
        (lambda project: (project.state / "pipelines" / "pipeline.json").write_text("[1]"), "older versions"),
    ],
)
def test_a_yaml_that_cannot_be_compared_with_is_told_and_the_rest_shown(project, status, spoil, message):
    spoil(project)
    nodes, problems = status()
    assert message in problems["pipeline"] and {node["state"] for node in nodes.values()} == {"present"}


def test_the_last_yaml_of_a_name_counts_also_where_nothing_was_to_do(project, status, capsys):
    other = project.folder / "other.yml"
    other.write_text(yaml.safe_dump({**project.config(), "pipeline": {"name": "pipeline"}}))
    assert main(["run", str(other), "--state", str(project.state)]) == 0
    capsys.readouterr()
    project.edit(learning_rate=0.01)
    nodes, _ = status()
    assert {node["state"] for node in nodes.values()} == {"current"}


def test_a_name_that_is_no_pipelines_is_told(project, capsys):
    assert main(["status", "pipelin", "--state", str(project.state)]) == 1
    said = capsys.readouterr().err
    assert "no pipeline of this name" in said and "did you mean pipeline?" in said


def test_names_choose_and_a_table_says_the_same(project, status, capsys):
    project.store.refs.write("gone", "trained", Ref("sft", "0" * 64, "1" * 64))
    nodes, _ = status("gone", code=1)
    assert nodes["trained"]["state"] == "missing or damaged"
    capsys.readouterr()
    project.edit(learning_rate=0.01)
    assert main(["status", "--state", str(project.state), "pipeline"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.split()[1] == "trained"]
    assert "stale" in line and "learning_rate" in line
