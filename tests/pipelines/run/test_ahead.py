"""Nodes of data that are computed before their turn: two at once, and none any more when the run is over."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.project import make_project, nodes_in_state

from tunemill.pipelines.assets.run import run_pipeline
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.resources.building import lease_of
from tunemill.resources.launcher import in_child
from tunemill.resources.lease import lease
from tunemill.resources.logs import attempts

DATA = {"dataset_sums", "dataset_echoes", "tokenizer", "tokenized_sums", "tokenized_echoes", "training_data"}
SLOW = "import time\ndef sleepy(cfg):\n    def read(row):\n        time.sleep(600)\n    return read, {}\n"


def run_data(project):
    """What became of the nodes of data, each computed in a process, and every event in the order it came."""
    events = []
    finished = run_pipeline(
        load_pipeline(project.yaml).data(),
        project.store,
        observe=lambda node, event: events.append((node, event["type"])),
        launch=in_child,
    )
    return {item.node: item for item in finished}, events


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path / "project", test_datasets=None)


@pytest.mark.slow
def test_nodes_that_wait_for_nothing_run_beside_each_other(project):
    finished, events = run_data(project)
    assert nodes_in_state(finished, "computed") == DATA
    running, most = set(), 0
    for node, kind in events:
        running = running | {node} if kind == "start" else running - {node} if kind == "done" else running
        most = max(most, len(running))
    assert most == 2
    places = {event: place for place, event in enumerate(events)}
    for node, upstream in (("tokenized_sums", "dataset_sums"), ("training_data", "tokenized_echoes")):
        assert places[node, "start"] > places[upstream, "done"]
    again, events = run_data(project)
    assert nodes_in_state(again, "cached") == DATA and not events


@pytest.mark.slow
def test_what_fails_ahead_fails_where_it_is_asked_for(project):
    (project.folder / "data" / "sums.jsonl").write_text('{"messages": 1}\n')
    finished, events = run_data(project)
    assert nodes_in_state(finished, "failed") == {"tokenized_sums"}
    assert "sums.jsonl:1" in finished["tokenized_sums"].message
    assert nodes_in_state(finished, "skipped") == {"training_data"}
    assert nodes_in_state(finished, "computed") == DATA - {"tokenized_sums", "training_data"}
    assert events.count(("tokenized_sums", "failure")) == 1


def processes_of(folder):
    """The processes whose command line names something in a folder."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit() and place.name != str(os.getpid()):
            try:
                words = (place / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if str(folder) in words and "launcher" in words:
                found.append(words)
    return found


def settled(folder, count):
    """Whether there are so many of them, soon."""
    deadline = time.monotonic() + 20
    while len(processes_of(folder)) != count and time.monotonic() < deadline:
        time.sleep(0.1)
    return len(processes_of(folder)) == count


def test_an_interrupted_run_leaves_no_process_behind(project):
    (project.folder / "mine.py").write_text(SLOW)
    datasets = project.config()["datasets"]
    project.edit(datasets=[{**datasets[0], "type": "mine.sleepy"}, {**datasets[1], "type": "mine.sleepy"}])
    command = [sys.executable, "-m", "tunemill.pipelines.cli", "preprocess", str(project.yaml)]
    with subprocess.Popen(
        [*command, "--state", str(project.state)], stderr=subprocess.PIPE, text=True, cwd=project.folder
    ) as run:
        try:
            started = 0
            for line in run.stderr:
                started += "tokenized" in line and "started" in line
                if started == 2:
                    break
            assert settled(project.state, 2)
            run.send_signal(signal.SIGINT)
            _, rest = run.communicate(timeout=120)
        finally:
            # Its processes go with it.
            run.kill()
    assert run.returncode == 130
    assert "interrupted; nothing half-done was published" in rest and "Traceback" not in rest
    assert "tokenized_sums was stopped" in rest and "tokenized_echoes was stopped" in rest
    assert settled(project.state, 0)
    logs = attempts(project.store)
    assert [log.state for log in logs] == ["interrupted", "interrupted"]
    plan = project.plan()
    assert json.dumps([plan["tokenized_sums"].state, plan["dataset_sums"].state]) == '["run", "cached"]'


def test_an_interrupted_run_waits_for_no_other_run(project):
    """The test holds what the run would compute first, as another run would."""
    key = project.plan()["dataset_sums"].key
    command = [sys.executable, "-m", "tunemill.pipelines.cli", "preprocess", str(project.yaml)]
    with (
        lease(lease_of(project.state / "building" / "dataset" / key), print),
        subprocess.Popen(
            [*command, "--state", str(project.state)], stderr=subprocess.PIPE, text=True, cwd=project.folder
        ) as run,
    ):
        try:
            for line in run.stderr:
                if "dataset_sums: waiting for" in line:
                    break
            # Until nothing else is computed.
            assert settled(project.state, 0)
            interrupted = time.monotonic()
            run.send_signal(signal.SIGINT)
            _, rest = run.communicate(timeout=60)
        finally:
            run.kill()
    assert time.monotonic() - interrupted < 10
    assert run.returncode == 130 and "Traceback" not in rest
