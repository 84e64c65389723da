"""Workers of a Ray cluster do what one process does, and end with whoever has started them."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from support import bodies
from support.own_environment import ROOT
from support.project import make_project
from support.ray_cluster import Cluster, ray_cluster

from tunemill.resources import workers
from tunemill.resources.calls import Call, Ray
from tunemill.resources.errors import LaunchError
from tunemill.resources.launcher import in_child

FOLDERS = ("data", "checkpoints", "logs")
STARTED = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from resources.test_workers import call_of
from tunemill.resources.calls import Ray
from tunemill.resources.launcher import in_child
in_child(call_of(Path(sys.argv[2]), "1: hangs", Ray(sys.argv[3], {}, "hangs")), print)
"""


def call_of(folder: Path, what: str, ray: Ray | None) -> Call:
    for name in FOLDERS:
        (folder / name).mkdir(parents=True)
    workspace = {name: folder / name for name in FOLDERS}
    return bodies.call_of(bodies.among_ranks, workspace, what, processes=2, ray=ray)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ray_cluster() as started, pytest.MonkeyPatch.context() as patch:
        for name in ("PYTHONPATH", "PATH", "OMP_NUM_THREADS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            patch.setenv(name, started.environment[name])
        yield started


@pytest.mark.slow
def test_a_training_in_workers_is_that_of_one_process(cluster, tmp_path):
    project = make_project(
        tmp_path / "p", tmp_path / "state", sample_packing=False, max_steps=3, micro_batch_size=2
    )
    alone = project.run("gradient_accumulation_steps=2", only=["trained"])["trained"]
    weights = load_file(alone.published.data / "adapter_model.safetensors")
    events: list[dict[str, Any]] = []
    there = project.run(
        "pipeline.launcher.kind=ray", f"pipeline.launcher.address={cluster.address}", "pipeline.launcher.processes=2",
        launch=in_child, only=["trained"], refresh=["trained"], observe=lambda _node, event: events.append(event),
    )["trained"]  # fmt: skip
    assert there.state == "computed" and there.key == alone.key
    assert there.published.manifest["metrics"]["processes"] == 2
    assert [event["step"] for event in events if event["type"] == "step"] == [1, 2, 3]
    for name, tensor in load_file(there.published.data / "adapter_model.safetensors").items():
        assert (tensor - weights[name]).abs().max() < 1e-5, name
    assert not list(there.published.folder.rglob("ray"))


@pytest.mark.exhaustive
def test_a_users_mistake_of_any_worker_is_all_that_is_said(cluster, tmp_path):
    with pytest.raises(LaunchError) as caught:
        in_child(call_of(tmp_path, "1: user error", Ray(cluster.address, {}, "fails")), lambda _event: None)
    assert str(caught.value) == "rows.jsonl:3: not valid JSON; mend the line" and caught.value.user


@pytest.mark.exhaustive
def test_a_killed_worker_is_named(cluster, tmp_path):
    with pytest.raises(LaunchError) as caught:
        in_child(call_of(tmp_path, "1: killed", Ray(cluster.address, {}, "killed")), lambda _event: None)
    assert "rank 1 of 2 ended without a word" in str(caught.value) and caught.value.crashed


@pytest.mark.exhaustive
def test_workers_end_with_whoever_has_started_them(cluster, tmp_path):
    arguments = [str(ROOT / "tests"), str(tmp_path / "w"), cluster.address]
    started = subprocess.Popen([sys.executable, "-c", STARTED, *arguments], stdout=subprocess.DEVNULL)
    checkpoints = tmp_path / "w" / "checkpoints"
    until = time.monotonic() + 300
    while not (pids := "".join(file.read_text() for file in sorted(checkpoints.glob("pid*"))[-1:])):
        assert started.poll() is None and time.monotonic() < until
        time.sleep(0.2)
    started.send_signal(signal.SIGKILL)
    started.wait()
    worker = Path("/proc") / pids
    until = time.monotonic() + 30
    while worker.exists() and time.monotonic() < until:
        time.sleep(0.2)
    assert not worker.exists()


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed here")
def test_without_ray_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    with pytest.raises(LaunchError, match=r"pip install 'tunemill\[ray\]'") as caught:
        in_child(call_of(tmp_path, "hello", Ray(None, {}, "none")), lambda _event: None)
    assert caught.value.user


def test_what_is_set_aside_for_a_worker():
    asked = Ray(None, {"CPU": 4, "GPU": 0.5}, "one")
    assert workers.wanted(asked, 2, {"CPU": 8, "GPU": 2}) == {"CPU": 4, "GPU": 0.5}
    plain = replace(asked, resources={})
    assert workers.wanted(plain, 2, {"CPU": 8, "GPU": 2}) == {"CPU": 1, "GPU": 1}
    assert workers.wanted(plain, 4, {"CPU": 8, "GPU": 2}) == {"CPU": 1}
    assert workers.lacking({"CPU": 3, "GPU": 1}, 2, {"CPU": 4, "GPU": 2}) == "2 x 3 CPU of 4"


def test_a_machine_that_lacks_a_folder_or_has_other_libraries_is_named(tmp_path):
    call = call_of(tmp_path / "here", "hello", None)
    given = {"call": call, "versions": workers.versions()}
    assert workers.fault_of_machine(given) == ""
    other = {**given, "versions": {**workers.versions(), "torch": "1.0"}}
    assert "has torch" in workers.fault_of_machine(other) and "this one 1.0" in workers.fault_of_machine(
        other
    )
    gone = replace(call, inputs={"model": ("x:y", str(tmp_path / "elsewhere"))})
    assert f"has no {tmp_path / 'elsewhere'}" in workers.fault_of_machine({**given, "call": gone})


def test_who_connects_and_is_no_worker_keeps_none_from_being_heard(tmp_path):
    heard: list[dict[str, Any]] = []
    call = call_of(tmp_path, "hello", None)
    with workers.Ears(call, heard.append, "127.0.0.1", tmp_path / "logs") as ears:
        # One that says nothing, and others that are gone at once or speak of something else.
        silent = socket.create_connection(ears.address)
        for _ in range(3):
            socket.create_connection(ears.address).close()
        for words in (b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00\x00\x05hello"):
            stranger = socket.create_connection(ears.address)
            stranger.sendall(words)
            stranger.close()

        def work() -> None:
            with Client(ears.address, authkey=ears.key) as events:
                events.send(0)
                events.send({"type": "log", "message": "at work"})

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        until = time.monotonic() + 10
        while not heard and time.monotonic() < until:
            time.sleep(0.01)
    silent.close()
    assert heard == [{"type": "log", "message": "at work"}]


def test_no_secret_of_this_process_goes_to_workers():
    found = workers.environment({"HF_TOKEN": "s", "GLOO_SOCKET_IFNAME": "eth0", "PATH": "/bin", **os.environ})
    assert found["GLOO_SOCKET_IFNAME"] == "eth0" and found["PYTHONHASHSEED"] == "0"
    assert not {"HF_TOKEN", "PATH", "HOME"} & found.keys()
