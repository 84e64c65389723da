"""status, lineage, cache: what people and machines read of them."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.project import nodes_in_state

from tunemill.pipelines.cli import main


@pytest.fixture
def tunemill(project, capsys):
    def call(*arguments, code=0):
        assert main([*arguments, "--state", str(project.state)]) == code
        return capsys.readouterr().out

    return call


def test_plan_as_json(tunemill, project):
    document = json.loads(tunemill("plan", str(project.yaml), "--json", "--learning_rate=0.5"))
    assert document["pipeline"] == "pipeline" and len(document["nodes"]) == 18
    trained = next(node for node in document["nodes"] if node["node"] == "trained")
    assert set(trained) == {
        "node",
        "stage",
        "state",
        "reasons",
        "key",
        "last_seconds",
        "resumes_from",
        "pin",
        "without_pin",
        "only_for",
        "pinned_inputs",
    }
    assert trained["state"] == "run" and trained["reasons"] == ["learning_rate 0.001 -> 0.5"]
    assert trained["last_seconds"] > 0 and len(trained["key"]) == 64


def test_run_as_json_has_paths_digests_and_flat_metrics(tunemill, project):
    document = json.loads(tunemill("run", str(project.yaml), "--json"))
    nodes = {node["node"]: node for node in document["nodes"]}
    assert {node["state"] for node in nodes.values()} == {"cached"}
    assert {"eval_loss", "perplexity", "exact_match"} <= set(nodes["evaluation_of_merged"]["metrics"])
    sure = nodes["evaluation_of_merged"]["intervals"]["exact_match"]
    assert (sure["low"], sure["rows"], sure["method"]) == (0.0, 4, "wilson") and 0.4 < sure["high"] < 0.6
    assert "intervals" not in nodes["trained"]
    assert {"train_loss", "steps", "tokens_per_second"} <= set(nodes["trained"]["metrics"])
    assert 0.5 < nodes["training_data"]["metrics"]["packing_efficiency"] <= 1
    for node in nodes.values():
        assert len(node["digest"]) == 64 and node["path"]
        assert not any(isinstance(value, dict | list) for value in node["metrics"].values())


def test_plan_and_run_as_tables(tunemill, project):
    assert "nothing to run" in tunemill("plan", str(project.yaml))
    shown = tunemill("run", str(project.yaml))
    assert "all 18 nodes cached" in shown and "exact_match" in shown and "browse it: tunemill ui" in shown
    # The links that are in the user's folder, and no path of 64 digits.
    assert f"merged: {project.folder / 'outputs' / 'merged'}\n" in shown and "artifacts" not in shown
    assert "0 (0 to 0.49)" in shown, "how sure a score over four rows is"
    assert shown.count("cached") == 1
    assert tunemill("run", str(project.yaml), "--verbose").count("cached") == 18


def test_a_failed_run_says_its_message_once_in_full_and_invites_nobody_to_browse(tunemill, project):
    rows = project.folder / "data" / "sums.jsonl"
    rows.write_text('{"other": 1}\n' * 3)
    shown = tunemill("run", str(project.yaml), code=1)
    assert "browse it" not in shown and "failed: " in shown
    page = Path(shown.partition("report: ")[2].partition("\n")[0]).read_text()
    assert "tokenized_sums failed: " in page
    (line,) = [line for line in shown.splitlines() if line.startswith("tokenized_sums")]
    assert "cannot be used" in line and "sums.jsonl:1" not in shown


def test_tables_in_a_pipe_take_the_width_of_columns(tunemill, project, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    for command in (
        ["plan", str(project.yaml)],
        ["status"],
        ["cache", "ls"],
        ["cache", "prune", "--dry-run"],
    ):
        assert max(map(len, tunemill(*command).splitlines())) <= 60
    monkeypatch.setenv("COLUMNS", "nonsense")
    assert max(map(len, tunemill("cache", "ls").splitlines())) > 60


def test_sizes_are_for_people_and_bytes_for_machines(tunemill):
    assert re.search(r" \d+(\.\d)? kB ", tunemill("cache", "ls"))
    artifacts = json.loads(tunemill("cache", "ls", "--json"))["artifacts"]
    assert all(isinstance(item["bytes"], int) for item in artifacts)


@pytest.mark.slow
def test_a_prune_says_in_kilobytes_what_it_would_free(tunemill, project):
    shutil.rmtree(project.state / "refs" / "pipeline")
    project.run("--learning_rate=0.5", "--pipeline.evaluate=[]")
    shown = tunemill("cache", "prune", "--dry-run")
    assert re.search(r"\d kB ", shown) and " bytes" not in shown
    garbage = json.loads(tunemill("cache", "prune", "--dry-run", "--json"))["garbage"]
    assert garbage and all(isinstance(item["bytes"], int) for item in garbage)


def test_status_shows_every_node(tunemill, project):
    nodes = json.loads(tunemill("status", "--json"))["nodes"]
    assert {node["node"] for node in nodes} == set(project.plan()) and {n["state"] for n in nodes} == {
        "current"
    }
    assert "evaluation_of_quantized" in tunemill("status")
    shutil.rmtree(project.plan()["merged"].cached.folder)
    nodes = json.loads(tunemill("status", "--json", code=1))["nodes"]
    assert next(node for node in nodes if node["node"] == "merged")["state"] == "missing or damaged"


def test_lineage_names_the_datasets_from_a_copy_of_the_model_alone(project, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(project.plan()["quantized"].cached.data, copy)
    shutil.rmtree(project.state)
    assert main(["lineage", str(copy), "--json", "--state", str(tmp_path / "empty")]) == 0
    document = json.loads(capsys.readouterr().out)
    datasets = {item["node"]: item for item in document["datasets"]}
    assert set(datasets) == {"pipeline/dataset_sums", "pipeline/dataset_echoes"}
    assert datasets["pipeline/dataset_sums"]["rows"] == 20
    assert datasets["pipeline/dataset_sums"]["path"].endswith("sums.jsonl")
    assert document["stage"] == "quantized" and document["inputs"]["model"][0]["node"] == "merged"
    assert main(["lineage", str(copy)]) == 0
    assert "sums.jsonl" in capsys.readouterr().out


def test_lineage_of_a_node_and_of_nothing(tunemill, project):
    assert "pipeline/trained" in tunemill("lineage", "pipeline/merged")
    tunemill("lineage", "pipeline/nothing", code=1)
    tunemill("lineage", str(project.folder / "data"), code=1)


def test_cache_ls_lists_every_artifact(tunemill, project):
    artifacts = json.loads(tunemill("cache", "ls", "--json"))["artifacts"]
    assert len(artifacts) == len(project.store.artifacts())
    assert all(item["bytes"] > 0 and item["digest"] for item in artifacts)
    assert "tokenized" in tunemill("cache", "ls")


def test_prune_deletes_only_what_no_node_needs(tunemill, project):
    assert json.loads(tunemill("cache", "prune", "--json"))["garbage"] == []
    before = len(project.store.artifacts())
    project.run("learning_rate=0.002")
    after = len(project.store.artifacts())
    assert after > before
    would = json.loads(tunemill("cache", "prune", "--dry-run", "--json"))
    assert len(would["garbage"]) == after - before and not would["deleted"]
    assert len(project.store.artifacts()) == after
    tunemill("cache", "prune")
    assert len(project.store.artifacts()) == before
    assert nodes_in_state(project.plan("learning_rate=0.002"), "run") == set()


def test_a_refreshed_node_that_is_not_there_is_an_error(tunemill, project):
    tunemill("run", str(project.yaml), "--refresh", "nowhere", code=1)


def test_the_schema_is_json(capsys):
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["properties"]["learning_rate"]["description"]


@pytest.mark.slow
def test_json_output_is_one_document_and_nothing_else(project):
    command = [sys.executable, "-m", "tunemill.pipelines.cli", "run", str(project.yaml), "--json"]
    done = subprocess.run(
        [*command, "--state", str(project.state), "--eval_batch_size=2", "--pipeline.evaluate=[base]"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["pipeline"] == "pipeline"
    assert "evaluation_of_base: computed" in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error():
    command = f"{sys.executable} -m tunemill.pipelines.cli schema | head -c 100"
    ran = subprocess.run(
        ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True
    )
    assert ran.stderr == "" and ran.returncode in (0, 141) and len(ran.stdout) == 100
