"""Launchers: the same call in this process and in a child; a child never outlives its parent."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from support import bodies

from tunemill.resources.calls import name_of
from tunemill.resources.errors import LaunchError
from tunemill.resources.launcher import in_child, in_this_process
from tunemill.stages.artifacts import Artifact

IN_CHILD = """
import json, sys
from tunemill.resources.calls import Call
from tunemill.resources.launcher import in_child
in_child(Call(**json.load(open(sys.argv[1]))), print)
"""
TESTS = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def children_find_the_bodies(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(TESTS))


@pytest.fixture
def workspace(tmp_path):
    folders = {name: tmp_path / name for name in ("data", "checkpoints", "logs")}
    for folder in folders.values():
        folder.mkdir()
    return folders


def call(workspace, body, what="hello", inputs=None):
    return bodies.call_of(getattr(bodies, body), workspace, what, inputs=inputs or {})


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.parametrize("launch", [in_this_process, in_child])
def test_both_launchers_do_the_same(launch, workspace):
    artifact = name_of(Artifact)
    inputs = {"one": (artifact, "/x/a"), "many": (artifact, ["/x/b", "/x/c"]), "none": (artifact, None)}
    events = []
    launch(call(workspace, "echo", inputs=inputs), events.append)
    printed = [event["text"] for event in events if event["type"] == "output"]
    assert printed == (["printed, not an event\n"] if launch is in_child else [])
    events = [event for event in events if event["type"] != "output"]
    assert (workspace["data"] / "out.txt").read_text() == "hello a ['b', 'c']"
    assert [event["type"] for event in events] == ["log", "progress", "step", "summary"]
    assert events[2] == {"type": "step", "step": 3, "metrics": {"loss": 0.5}}


def test_no_garbage_is_looked_for_in_what_a_body_imports(workspace):
    events = []
    in_child(call(workspace, "misbehave", "nothing"), events.append)
    metrics = events[0]["metrics"]
    assert metrics["collects"] and metrics["passed_over"] > 10_000


def test_a_file_where_a_person_works_is_not_the_module_of_its_name(tmp_path, workspace, monkeypatch):
    (tmp_path / "json.py").write_text("raise RuntimeError")
    monkeypatch.chdir(tmp_path)
    in_child(call(workspace, "misbehave", "nothing"), lambda _: None)


@pytest.mark.parametrize("launch", [in_this_process, in_child])
def test_a_users_mistake_comes_back_as_its_message(launch, workspace):
    with pytest.raises(LaunchError, match=r"^rows.jsonl:3: not valid JSON; mend the line$") as caught:
        launch(call(workspace, "misbehave", "user error"), print)
    assert caught.value.user


def test_our_mistake_comes_back_with_the_end_of_the_output(workspace):
    with pytest.raises(LaunchError, match=r"(?s)exit code 1.*KeyError: 'a mistake of ours'") as caught:
        in_child(call(workspace, "misbehave", "mistake"), print)
    assert not caught.value.user


def test_a_killed_child_is_explained(workspace):
    with pytest.raises(LaunchError, match=r"ended by SIGKILL .*ran out of memory.*last checkpoint"):
        in_child(call(workspace, "misbehave", "killed"), print)


def test_a_full_disk_is_explained(workspace):
    with pytest.raises(LaunchError, match=r"the disk is full.*nothing was published.*cache prune"):
        in_child(call(workspace, "misbehave", "disk full"), print)


@pytest.mark.parametrize("what", ["sleep with a child", pytest.param("deaf", marks=pytest.mark.slow)])
def test_an_interrupt_ends_the_whole_group(workspace, what):
    def interrupt(_event):
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        in_child(call(workspace, "misbehave", what), interrupt)
    pids = [int(pid) for pid in (workspace["logs"] / "pids").read_text().split()]
    wait_until(lambda: all(gone(pid) for pid in pids), 2)
    assert time.monotonic() - started < 15


def test_when_the_parent_is_killed_the_whole_group_goes(workspace, tmp_path):
    request = tmp_path / "call.json"
    request.write_text(json.dumps(asdict(call(workspace, "misbehave", "sleep with a child"))))
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            IN_CHILD,
            str(request),
        ],
        start_new_session=True,
    )
    pids_file = workspace["logs"] / "pids"
    wait_until(lambda: pids_file.exists() and len(pids_file.read_text().split()) == 2)
    pids = [int(pid) for pid in pids_file.read_text().split()]
    assert not any(gone(pid) for pid in pids)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    wait_until(lambda: all(gone(pid) for pid in pids), 5)


def test_what_takes_too_long_is_stopped_with_all_that_it_has_started(workspace):
    asleep = replace(call(workspace, "misbehave", "sleep with a child"), seconds=6.0, limit="a key: 6")
    with pytest.raises(LaunchError, match=r"stopped after 6 s, .* \(a key: 6\)") as caught:
        in_child(asleep, lambda _event: None)
    assert caught.value.crashed and not caught.value.user
    assert all(gone(int(pid)) for pid in (workspace["logs"] / "pids").read_text().split())


@pytest.mark.parametrize(("what", "crashed"), [("killed", True), ("mistake", False), ("user error", False)])
def test_only_what_something_outside_has_ended_may_be_tried_again(what, crashed, workspace):
    with pytest.raises(LaunchError) as caught:
        in_child(call(workspace, "misbehave", what), lambda _event: None)
    assert caught.value.crashed == crashed
