"""Attempts: each in its own folder, and only who still holds the lease publishes."""

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tunemill.resources import lease as lease_module
from tunemill.resources.building import lease_of
from tunemill.resources.canonical import hash_document
from tunemill.resources.errors import StoreError
from tunemill.resources.store import KEY_PARTS, Published, Store

DOCUMENT = {part: {} for part in KEY_PARTS} | {"stage": "stage", "version": 1}
KEY = hash_document(DOCUMENT)
FACTS = {"inputs": {}, "metrics": {}, "seconds": 1.0}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "state")


def prepare(store, building, text):
    (building.data / "rows.txt").write_text(text)
    return store.prepare(building, DOCUMENT, FACTS, lambda digest: {"digest": digest})


def steal(building):
    """What another host does after this one gave no sign of life: its own token in the lease."""
    path = lease_of(building.folder.parent)
    holder = {**json.loads(path.read_text()), "host": "elsewhere", "token": "another"}
    path.write_text(json.dumps(holder))
    long_ago = time.time() - 3600
    os.utime(path, (long_ago, long_ago))


def test_a_holder_that_was_only_stopped_does_not_publish_what_the_next_one_builds(store):
    with store.building("stage", KEY, print) as stopped:
        (stopped.data / "rows.txt").write_text("half")
        (stopped.checkpoints / "step-3").write_text("3")
        steal(stopped)
        with store.building("stage", KEY, print) as building:
            assert building.folder != stopped.folder
            assert (building.checkpoints / "step-3").read_text() == "3"
            assert not stopped.folder.exists()
            (building.data / "rows.txt").write_text("of the new one, half")
            with pytest.raises(OSError):
                prepare(store, stopped, "of the old one")
            ready = prepare(store, building, "whole")
            published = store.publish(building, ready)
    assert (published.data / "rows.txt").read_text() == "whole"
    assert store.verify(published.folder) == []


def test_a_holder_that_lost_its_lease_at_the_last_moment_does_not_publish(store):
    with store.building("stage", KEY, print) as building:
        ready = prepare(store, building, "late")
        steal(building)
        with pytest.raises(
            StoreError, match=r"process .* on elsewhere has taken over.*nothing was published"
        ):
            store.publish(building, ready)
    assert not isinstance(store.lookup("stage", KEY), Published)


STOPPED = """
import os, signal, sys
from pathlib import Path
from tunemill.resources import lease
lease.this_host = lambda: "another host"
lease.HEARTBEAT_SECONDS, lease.EXPIRES_SECONDS = 0.1, 1.0
from tunemill.resources.errors import StoreError
from tunemill.resources.store import Store
import test_building as here
store = Store(Path(sys.argv[1]))
try:
    with store.building("stage", here.KEY, print) as building:
        ready = here.prepare(store, building, "of the stopped one")
        print("ready", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
        store.publish(building, ready)
except (StoreError, OSError) as error:
    print(f"refused: {error}", flush=True)
    sys.exit(3)
"""


def test_a_process_of_another_host_that_is_stopped_and_goes_on_is_fenced(store, monkeypatch):
    monkeypatch.setattr(lease_module, "EXPIRES_SECONDS", 1.0)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    child = subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(store.root)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert child.stdout.readline() == "ready\n"
    os.waitid(os.P_PID, child.pid, os.WSTOPPED)
    said = []
    with store.building("stage", KEY, said.append) as building:
        published = store.publish(building, prepare(store, building, "of the next one"))
        child.send_signal(18)  # SIGCONT
        assert child.wait(30) == 3
    assert "waiting for process" in said[0]
    assert child.stdout.read().startswith("refused: ")
    assert (published.data / "rows.txt").read_text() == "of the next one"
    assert store.verify(published.folder) == []


@pytest.mark.parametrize(
    "contents", [b"{}", b"[]", b"null", b"\xff\xfe", b'{"host": 3}', b"[" * 100_000, None], ids=repr
)
def test_a_damaged_lease_holds_nothing(store, contents):
    place = store.root / "building" / "stage" / KEY
    place.parent.mkdir(parents=True)
    if contents is None:
        (lease_of(place) / "sub").mkdir(parents=True)
    else:
        lease_of(place).write_bytes(contents)
    with store.building("stage", KEY, lambda said: pytest.fail(said)) as building:
        published = store.publish(building, prepare(store, building, "x"))
    assert isinstance(store.lookup("stage", KEY), Published)
    assert published.data.exists()


@pytest.mark.parametrize(("mask", "others"), [(0o022, 0o444), (0o027, 0o440), (0o077, 0o400)])
def test_whom_the_umask_lets_read_may_read_whatever_rights_a_library_gave(store, mask, others):
    before = os.umask(mask)
    try:
        with store.building("stage", KEY, print) as building:
            (building.data / "sub").mkdir(mode=0o700)
            (building.data / "sub" / "weights.bin").write_text("w")
            (building.data / "sub" / "weights.bin").chmod(0o600)
            published = store.publish(building, prepare(store, building, "x"))
    finally:
        os.umask(before)
    files = [path for path in published.folder.rglob("*") if path.is_file()]
    folders = [published.folder, *(path for path in published.folder.rglob("*") if path.is_dir())]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {others}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o555 & ~(mask & 0o077)}
