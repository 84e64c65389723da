"""Several processes, and processes that die."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from support.project import Project, make_project

from tunemill.pipelines.assets.run import run_pipeline
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.nodes import Pipeline
from tunemill.resources.launcher import in_this_process

CLI = [sys.executable, "-m", "tunemill.pipelines.cli"]


def start(project, *arguments):
    return subprocess.Popen(
        [*CLI, "run", str(project.yaml), "--state", str(project.state), "--json", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=240)
    assert out, err
    return json.loads(out)["nodes"], err


@pytest.mark.slow
def test_two_processes_compute_each_stage_once(tmp_path):
    one_dataset = [{"path": "data/sums.jsonl", "type": "chat_template"}]
    keys = dict.fromkeys(("adapter", "quantization", "test_datasets"))
    project = make_project(tmp_path / "project", datasets=one_dataset, **keys)
    # The rows are there already; sequences, model and training are what both are after.
    pipeline = load_pipeline(project.yaml)
    made = [node for node in pipeline.nodes if node.name.startswith(("tokenizer", "dataset_", "tokenized_"))]
    run_pipeline(replace(pipeline, nodes=tuple(made)), project.store, launch=in_this_process)
    (one, said_by_one), (other, said_by_other) = [
        finish(process) for process in [start(project), start(project)]
    ]
    raced = {node["node"] for node in one} - {node.name for node in made}
    assert raced == {"training_data", "base_model", "trained"}
    for mine, theirs in zip(one, other, strict=True):
        assert mine["digest"] == theirs["digest"] and mine["key"] == theirs["key"]
        states = ["cached", "computed"] if mine["node"] in raced else ["cached", "cached"]
        assert sorted([mine["state"], theirs["state"]]) == states, (mine, theirs)
    assert "waiting for process" in said_by_one + said_by_other


@pytest.mark.slow
def test_a_killed_training_process_resumes_to_the_same_bits(tmp_path):
    keys = {
        "max_steps": 30,
        "save_steps": 3,
        "lora_dropout": 0.1,
        "quantization": None,
        "test_datasets": None,
    }
    keys |= {"logging_steps": 1}
    straight = make_project(tmp_path / "straight", **keys)
    # What goes before training is made once, in this process.
    run_pipeline(before_training(straight), straight.store, launch=in_this_process)
    shutil.copytree(straight.folder, tmp_path / "killed", symlinks=True)
    killed = Project(tmp_path / "killed", tmp_path / "killed" / ".tunemill")
    process = start(killed)
    # When a checkpoint has begun to be written, the one before it is complete.
    checkpoint = wait_for_checkpoint(killed, random.choice([6, 9, 12, 15, 18, 21]))
    trainer = trainer_of(checkpoint)
    os.kill(trainer, signal.SIGKILL)
    nodes, _ = finish(process)
    states = {node["node"]: node["state"] for node in nodes}
    assert process.returncode == 1 and states["trained"] == "failed" and states["merged"] == "skipped"
    assert "SIGKILL" in next(node["message"] for node in nodes if node["node"] == "trained")
    assert not list((killed.state / "artifacts" / "sft").glob("*"))

    resumed, said = finish(start(killed))
    assert "resum" in said
    expected = {name: node.published.digest for name, node in straight.run().items()}
    assert {node["node"]: node["digest"] for node in resumed} == expected


def before_training(project: Project) -> Pipeline:
    pipeline = load_pipeline(project.yaml)
    names = [node.name for node in pipeline.nodes]
    return replace(pipeline, nodes=pipeline.nodes[: names.index("trained")])


def wait_for_checkpoint(project: Project, step: int) -> Path:
    deadline = time.monotonic() + 120
    while True:
        found = [
            path
            for path in (project.state / "building").glob("sft/*/*/checkpoints/*")
            if int(path.name.rpartition("-")[2]) >= step
        ]
        if found:
            return found[0]
        assert time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.01)


def trainer_of(checkpoint: Path) -> int:
    request = str(checkpoint.parent.parent / "logs" / "request.json").encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and request in (entry / "cmdline").read_bytes().split(b"\0"):
            return int(entry.name)
    raise AssertionError("the training process is not there")
