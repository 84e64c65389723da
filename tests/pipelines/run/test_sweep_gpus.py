"""A sweep over several GPUs: each training sees one of them and nobody waits; what cannot be had is refused."""

import json
import os
import socket
import subprocess
import sys
import threading
from datetime import datetime, timedelta

import pytest
import yaml
from support.project import make_project

from tunemill.pipelines.cli import main
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.run.materialize import Session, device
from tunemill.resources.store import Published, Store

SMALL = {
    "datasets": [{"path": "data/sums.jsonl", "type": "chat_template"}],
    "quantization": None,
    "eval_max_new_tokens": None,
    "test_datasets": None,
}


def swept(folder, **keys):
    block = {"evaluate": [], "sweep": {"learning_rate": [0.001, 0.002]}}
    return make_project(folder, **{**SMALL, "pipeline": block, **keys})


def trainings(project):
    """The manifests of both trainings, and when each began and ended, to the second."""
    found = []
    for rate in ("0_001", "0_002"):
        pipeline = load_pipeline(project.yaml, [f"pipeline.point=lr_{rate}"])
        ref = Store(project.state).refs.read(pipeline.name, "trained")
        published = Store(project.state).lookup(ref.stage, ref.key)
        assert isinstance(published, Published)
        begun = datetime.fromisoformat(published.manifest["started"])
        found.append((published.manifest, begun, begun + timedelta(seconds=published.manifest["seconds"])))
    return found


@pytest.mark.slow
def test_two_trainings_run_at_the_same_time_each_on_its_own_gpu(tmp_path):
    project = swept(tmp_path / "p", max_steps=200, logging_steps=50)
    done = subprocess.run(
        [sys.executable, "-m", "tunemill.pipelines.cli", "sweep", "pipeline.yml", "--gpus", "4,6", "--json"],
        cwd=project.folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {point["state"] for point in json.loads(done.stdout)["points"]} == {"finished"}
    assert "--gpus: this machine has none; 2 trainings at once" in done.stderr
    assert "waiting for" not in done.stderr
    (first, begun, ended), (second, other_begun, other_ended) = trainings(project)
    assert begun < other_ended and other_begun < ended, "one waited for the other"
    assert {one["environment"]["CUDA_VISIBLE_DEVICES"] for one in (first, second)} == {"4", "6"}


def test_who_uses_several_gpus_waits_for_who_uses_one_of_them(project, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0, 1")
    pipeline = load_pipeline(project.yaml)
    node = pipeline.node("trained")
    released, said = threading.Event(), []

    def observe(event):
        said.append(event["message"])
        released.set()

    taken = threading.Event()

    def other():
        with device(Session(pipeline, project.store, gpu="1"), node, observe):
            taken.set()
            released.wait(30)

    thread = threading.Thread(target=other)
    thread.start()
    assert taken.wait(30)
    with device(Session(pipeline, project.store, gpu="2"), node, observe):
        assert said == [], "another GPU is free"
    with device(Session(pipeline, project.store), node, observe):
        held = {path.name for path in (project.state / "devices").glob("*.lease")}
    thread.join()
    assert said[0].startswith("for the GPU: waiting for process ")
    assert held == {f"gpu-{socket.gethostname()}-{number}.lease" for number in (0, 1)}


@pytest.mark.parametrize("names", ["0,0", "0,", ""])
def test_what_are_no_gpus_is_refused(tmp_path, names, capsys):
    with pytest.raises(SystemExit):
        main(["sweep", str(swept(tmp_path / "p").yaml), "--gpus", names])
    assert "give each once, as in 0,1" in capsys.readouterr().err


def test_a_training_in_several_processes_has_no_single_gpu(tmp_path, capsys):
    project = swept(tmp_path / "p")
    config = yaml.safe_load(project.yaml.read_text())
    config["pipeline"]["launcher"] = {"processes": 2}
    project.yaml.write_text(yaml.safe_dump(config))
    assert main(["sweep", str(project.yaml), "--gpus", "0,1", "--state", str(project.state)]) == 1
    said = capsys.readouterr().err
    assert "trains in 2 processes" in said and "kind: python" in said
