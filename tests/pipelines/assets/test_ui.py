"""Dagster's own server over a project: what its pages show, what its buttons do."""

import os
import shutil
import time
from pathlib import Path

import pytest
import yaml
from support.project import Project
from support.ui import serve


@pytest.fixture(scope="module")
def served(finished_project, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ui") / "project"
    shutil.copytree(finished_project.folder, folder, symlinks=True)
    project = Project(folder, folder / ".tunemill")
    # A second pipeline that trains for long enough to be cancelled, on the same files.
    long = {**project.config(), "max_steps": 100_000, "logging_steps": 1, "pipeline": {"name": "long"}}
    (folder / "long.yml").write_text(yaml.safe_dump(long))
    with serve(project) as ui:
        yield project, ui


@pytest.mark.slow
def test_every_yaml_is_a_group_and_a_finished_pipeline_is_synced(served):
    _, ui = served
    assets = ui.assets()
    assert {node["groupName"] for node in assets.values()} == {"pipeline", "long"}
    finished = {name: node for name, node in assets.items() if node["groupName"] == "pipeline"}
    assert {node["staleStatus"] for node in finished.values()} == {"FRESH"}
    trained = finished["pipeline/trained"]
    assert trained["description"] and trained["kinds"]
    labels = {entry["label"] for entry in trained["assetMaterializations"][0]["metadataEntries"]}
    assert labels >= {"digest", "key", "state", "seconds", "datasets", "train_loss", "steps"}


@pytest.mark.slow
def test_an_edit_and_a_reload_show_unsynced_and_materializing_syncs_it(served):
    project, ui = served
    project.edit(eval_max_new_tokens=6, pipeline={"evaluate": ["base"]})
    ui.reload()
    stale = {name for name, node in ui.assets().items() if node["staleStatus"] == "STALE"}
    planned = {f"pipeline/{name}" for name, item in project.plan().items() if item.state == "run"}
    assert stale == planned == {f"pipeline/evaluation_of_{what}" for what in ("base",)}
    run_id = ui.launch([name.split("/") for name in sorted(stale)])
    assert ui.wait(run_id) == "SUCCESS"
    assert {item.state for item in project.plan().values()} == {"cached"}
    assert {n["staleStatus"] for n in ui.assets().values() if n["groupName"] == "pipeline"} == {"FRESH"}


@pytest.mark.slow
def test_the_button_of_the_evaluation_evaluates_and_does_nothing_else(served):
    project, ui = served
    project.edit(eval_max_new_tokens=7, pipeline={"evaluate": ["base", "merged"]})
    ui.reload()
    before = project.store.refs.read("pipeline", "trained")
    planned = {name for name, item in project.plan().items() if item.state == "run"}
    assert planned == {"evaluation_of_base", "evaluation_of_merged"}
    run_id = ui.launch_job("pipeline_evaluate")
    assert ui.wait(run_id) == "SUCCESS"
    steps = ui.steps(run_id)
    assert planned <= steps and not steps & {"trained", "merged", "quantized", "base_model", "training_data"}
    assert {item.state for item in project.plan().values()} == {"cached"}
    assert project.store.refs.read("pipeline", "trained") == before
    assert {n["staleStatus"] for n in ui.assets().values() if n["groupName"] == "pipeline"} == {"FRESH"}


@pytest.mark.slow
def test_cancelling_a_run_ends_the_whole_process_group_and_publishes_nothing(served):
    project, ui = served
    own = {name: node for name, node in ui.assets().items() if node["groupName"] == "long"}
    nodes = [name.split("/") for name, node in own.items() if node["isMaterializable"]]
    run_id = ui.launch(nodes)
    request = wait_for_training(project)
    children = processes_with(str(request))
    assert children
    ui.terminate(run_id)
    started = time.monotonic()
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() - started < 10, "the training process outlived its run"
        time.sleep(0.1)
    assert ui.wait(run_id) == "CANCELED"
    assert project.store.refs.read("long", "trained") is None
    assert not (project.state / "artifacts" / "sft" / request.parent.parent.name).exists()


def wait_for_training(project):
    deadline = time.monotonic() + 120
    while True:
        for request in (project.state / "building").glob("sft/*/*/logs/request.json"):
            if (request.parent.parent / "checkpoints").is_dir() and processes_with(str(request)):
                time.sleep(4)
                return request
        assert time.monotonic() < deadline, "training never started"
        time.sleep(0.2)


def processes_with(argument):
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if argument.encode() in command:
                found.append(int(entry.name))
    return [pid for pid in found if pid != os.getpid()]
