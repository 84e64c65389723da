"""Machines that look for the first one: a name that nobody knows, nobody who answers, one that is late."""

import socket
import threading
import time
from dataclasses import replace

import pytest
from support import bodies

from tunemill.resources import machines
from tunemill.resources.calls import Nodes


@pytest.fixture
def call(tmp_path):
    folders = {name: tmp_path / name for name in ("data", "checkpoints", "logs")}
    return bodies.call_of(
        bodies.among_ranks, folders, "hello", processes=2, nodes=Nodes(2, 1, "127.0.0.1:9", "key")
    )


@pytest.mark.parametrize("rank", [0, 1])
def test_a_name_that_nobody_knows_is_said_at_once(call, rank):
    misspelt = replace(call, nodes=Nodes(2, rank, "hedanode.invalid:29500", "key"))
    with pytest.raises(machines.NotMetError, match=r"nobody by the name hedanode\.invalid"):
        machines.meeting(misspelt, lambda _: None)


@pytest.mark.parametrize(
    ("limit", "error"),
    [("UNANSWERED_SECONDS", TimeoutError("timed out")), ("PATIENCE", ConnectionRefusedError())],
)
def test_who_never_answers_is_not_waited_for_for_ever(call, limit, error, monkeypatch):
    def connect(*_, **__):
        raise error

    monkeypatch.setattr(machines.socket, "create_connection", connect)
    monkeypatch.setattr(machines, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(machines, "REMIND_SECONDS", 0.05)
    monkeypatch.setattr(machines, limit, 0.2)
    said = []
    with pytest.raises(machines.NotMetError, match=r"nobody listens at 127\.0\.0\.1:9 for"):
        machines.meeting(call, lambda event: said.append(event["message"]))
    assert "is that the first machine, and at work?" in said[-1]


def test_one_that_is_late_is_waited_for(call, monkeypatch):
    monkeypatch.setattr(machines, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(machines, "UNANSWERED_SECONDS", 0.0)
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    threading.Timer(0.3, server.listen).start()
    port, began = server.getsockname()[1], time.monotonic()
    late = replace(call, nodes=replace(call.nodes, rendezvous=f"127.0.0.1:{port}"))
    assert machines.meeting(late, lambda _: None)["rdzv_configs"]["rank"] == 1
    assert time.monotonic() - began >= 0.25
    server.close()
