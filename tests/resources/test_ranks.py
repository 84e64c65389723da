"""A body in several processes: who speaks, who writes, how all end when one fails. Real processes of this machine."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from support import bodies

from tunemill.resources.calls import Nodes
from tunemill.resources.errors import LaunchError
from tunemill.resources.launcher import in_child

pytestmark = pytest.mark.slow
TESTS = Path(__file__).resolve().parent.parent
# Of a stage's config: it must be in no file.
URL = "s3://user:hunter2-hunter2@bucket/rows"
IN_CHILD = """
import json, sys
from tunemill.resources.calls import Call
from tunemill.resources.launcher import in_child
in_child(Call(**json.load(open(sys.argv[1]))), print)
"""


@pytest.fixture(autouse=True)
def children_find_the_bodies(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(TESTS)]))


@pytest.fixture
def workspace(tmp_path):
    folders = {name: tmp_path / name for name in ("data", "checkpoints", "logs")}
    for folder in folders.values():
        folder.mkdir()
    return folders


def call(workspace, what, **more):
    return bodies.call_of(bodies.among_ranks, workspace, what, processes=2, **more)


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def pids_of(workspace, seconds):
    """The ranks' processes, when all have begun."""
    files = [workspace["checkpoints"] / f"pid_{rank}" for rank in range(2)]
    until = time.monotonic() + seconds
    while not all(file.exists() and file.read_text() for file in files):
        assert time.monotonic() < until, "the ranks did not begin in time"
        time.sleep(0.1)
    return [int(file.read_text()) for file in files]


def test_the_first_rank_speaks_and_writes_for_all(workspace):
    events = []
    in_child(call(workspace, URL), events.append)
    said = [event for event in events if event["type"] != "output"]
    assert [event["type"] for event in said] == ["log", "progress", "summary"]
    assert said[-1]["metrics"] == {"ranks": 2}
    assert (workspace["data"] / "out.txt").read_text() == "rank 0"
    first, other = (workspace["logs"] / name for name in ("output.log", "rank_1.log"))
    assert "rank 0 prints" in first.read_text() and "rank 1" not in first.read_text()
    assert "rank 1 prints" in other.read_text() and "rank 1 of 2 says" in other.read_text()
    assert all("hunter2" not in file.read_text() for file in workspace["logs"].iterdir())
    assert all(gone(pid) for pid in pids_of(workspace, 0))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        pytest.param("1: user error", r"^rows.jsonl:3: not valid JSON; mend the line$", marks=pytest.mark.exhaustive),
        pytest.param("1: mistake", r"(?s)^rank 1 of 2 failed.*KeyError", marks=pytest.mark.exhaustive),
        pytest.param("0: killed", r"^rank 0 of 2 was ended by SIGKILL", marks=pytest.mark.exhaustive),
        pytest.param("1: stopped", r"^rank 1 of 2 was stopped \(SIGSTOP\)", marks=pytest.mark.exhaustive),
        ("1: hangs", r"rank 0 of 2 waited .* rank 1 was heard of least \(it was at 3 of 9 .* is at \S+bodies.py:\d+ "),
    ],
)  # fmt: skip
def test_the_rank_that_failed_is_named_and_all_end(what, said, workspace):
    failed_at: list[float] = []

    def hear(event):
        if event["type"] == "progress":
            failed_at.append(time.monotonic())

    with pytest.raises(LaunchError, match=said) as caught:
        in_child(call(workspace, what), hear)
    # One that hangs is waited for 6 s, as is one that is stopped. Half of this is for a machine that does much else.
    assert time.monotonic() - failed_at[-1] < 60
    assert caught.value.user == ("user error" in what)
    assert caught.value.crashed == (what.split(": ")[1] in ("killed", "stopped", "hangs"))
    assert all(gone(pid) for pid in pids_of(workspace, 0))


@pytest.mark.exhaustive
def test_one_that_hangs_is_told_with_its_place_before_all_end(workspace):
    events = []
    with pytest.raises(LaunchError, match="rank 0 of 2 waited"):
        in_child(call(workspace, "1: hangs in a loop for long"), events.append)
    (said,) = (event["message"] for event in events if "no process has moved on" in event.get("message", ""))
    assert re.search(
        r"for 2\d s: rank 1 is at \S+bodies.py:\d+ \(beside_the_others\); rank 0 waits for others", said
    )


@pytest.mark.parametrize(
    "what", ["1: hangs for long", pytest.param("0: hangs in a lock for long", marks=pytest.mark.exhaustive)]
)
def test_one_that_stands_still_while_another_waits_for_it_ends_all(what, workspace):
    hung, other = int(what[0]), 1 - int(what[0])
    said_at: list[float] = []
    said = rf"^rank {hung} of 2 hangs \(it was at 3 of 9 steps\): for \d+ s .* It is at \S+:\d+ .* Look at \S+log;"
    with pytest.raises(LaunchError, match=said) as caught:
        in_child(call(workspace, what, hangs_after=4), lambda _event: said_at.append(time.monotonic()))
    assert time.monotonic() - said_at[-1] < 25 and caught.value.crashed
    assert "bodies.py" in str(caught.value) and f"rank {other} of 2" not in str(caught.value)
    assert all(gone(pid) for pid in pids_of(workspace, 0))


@pytest.mark.exhaustive
def test_one_that_hangs_ends_all_within_30_seconds_where_nothing_is_set(workspace):
    said_at: list[float] = []
    with pytest.raises(LaunchError, match=r"^rank 1 of 2 hangs"):
        in_child(call(workspace, "1: hangs for long"), lambda _event: said_at.append(time.monotonic()))
    assert time.monotonic() - said_at[-1] < 30


@pytest.mark.parametrize(
    "what",
    [
        "1: computes",
        pytest.param("1: waits for a program that computes", marks=pytest.mark.exhaustive),
        "1: waits for a thread that asks a server",
        pytest.param("all: something slow", marks=pytest.mark.exhaustive),
    ],
)
def test_none_is_ended_that_does_something_slow(what, workspace):
    events = []
    in_child(call(workspace, what, hangs_after=4), events.append)
    assert events[-1]["type"] == "summary" and events[-1]["metrics"] == {"ranks": 2}


def test_a_port_that_is_taken_is_said_in_words(workspace):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(LaunchError) as caught:
            in_child(call(workspace, "hello", nodes=Nodes(2, 0, place, "key"), seconds=60), print)
    assert str(caught.value).startswith(
        f"pipeline.launcher.rendezvous: the machines cannot meet at {place}: "
    )
    assert caught.value.user and "Traceback" not in str(caught.value)


def test_when_the_parent_is_killed_all_ranks_go(workspace, tmp_path):
    request = tmp_path / "call.json"
    request.write_text(json.dumps(asdict(call(workspace, "1: stopped"))))
    parent = subprocess.Popen([sys.executable, "-c", IN_CHILD, str(request)], start_new_session=True)
    pids = pids_of(workspace, 120)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    until = time.monotonic() + 10
    while not all(gone(pid) for pid in pids):
        assert time.monotonic() < until, "a rank outlived whoever asked for it"
        time.sleep(0.1)
