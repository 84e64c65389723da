"""Leases: the second waits and says for whom; the dead hold nothing."""

import json
import os
import subprocess
import sys
import threading
import time

from tunemill.resources import lease as lease_module
from tunemill.resources.lease import EXPIRES_SECONDS, is_held, lease, this_host

HOLDER = """
import sys, time
from pathlib import Path
from tunemill.resources.lease import lease
with lease(Path(sys.argv[1]), print):
    print("held", flush=True)
    time.sleep(60)
"""


def hold_in_child(path):
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline().strip() == "held"
    return child


def test_the_second_waits_says_for_whom_and_gets_it(tmp_path):
    path, said, order = tmp_path / "x.lease", [], []
    child = hold_in_child(path)

    def second():
        with lease(path, said.append):
            order.append("second")

    waiting = threading.Thread(target=second)
    waiting.start()
    time.sleep(0.5)
    assert order == [] and is_held(path)
    child.kill()
    child.wait()
    waiting.join(5)
    assert order == ["second"]
    assert f"process {child.pid} on {this_host()}" in said[0]
    assert not path.exists()


def test_a_dead_process_of_this_host_holds_nothing(tmp_path):
    path = tmp_path / "x.lease"
    child = hold_in_child(path)
    child.kill()
    child.wait()
    assert path.exists() and not is_held(path)
    with lease(path, lambda message: (_ for _ in ()).throw(AssertionError(message))):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_recycled_process_number_is_not_the_holder(tmp_path):
    path = tmp_path / "x.lease"
    path.write_text(json.dumps({"host": this_host(), "pid": os.getpid(), "born": "1"}))
    assert not is_held(path)


def test_another_host_holds_it_while_its_heart_beats(tmp_path):
    path = tmp_path / "x.lease"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "born": "1"}))
    assert is_held(path)
    long_ago = time.time() - EXPIRES_SECONDS - 1
    os.utime(path, (long_ago, long_ago))
    assert not is_held(path)


def test_the_heart_beats_while_it_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(lease_module, "HEARTBEAT_SECONDS", 0.05)
    path = tmp_path / "x.lease"
    with lease(path, print):
        os.utime(path, (1, 1))
        time.sleep(0.3)
        assert path.stat().st_mtime > 1


def test_many_at_once_never_hold_it_together(tmp_path):
    path, inside, most = tmp_path / "x.lease", [], []

    def work(number):
        # Threads share one process, so the lease file is taken and removed many times in a row.
        with lease(path, lambda _: None):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.01)
            inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and len(most) == 8


def test_a_holder_that_lost_its_lease_leaves_the_new_one_alone(tmp_path):
    path = tmp_path / "x.lease"
    with lease(path, print):
        path.write_text("somebody else's")
    assert path.read_text() == "somebody else's"


def test_a_dead_holder_whose_clock_was_ahead_blocks_no_longer_than_any_other(tmp_path, monkeypatch):
    monkeypatch.setattr(lease_module, "EXPIRES_SECONDS", 0.5)
    path = tmp_path / "x.lease"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "born": "1"}))
    ahead = time.time() + 3600
    os.utime(path, (ahead, ahead))
    started, said = time.monotonic(), []
    with lease(path, said.append):
        assert 0.4 < time.monotonic() - started < 5
    assert "process 1 on elsewhere" in said[0]


def test_a_living_holder_whose_clock_is_behind_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setattr(lease_module, "EXPIRES_SECONDS", 0.5)
    path = tmp_path / "x.lease"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "born": "1"}))
    assert is_held(path)


def test_a_holder_that_wakes_up_does_not_beat_for_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setattr(lease_module, "HEARTBEAT_SECONDS", 0.05)
    path = tmp_path / "x.lease"
    with lease(path, print):
        path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "born": "1", "token": "t"}))
        os.utime(path, (1, 1))
        time.sleep(0.3)
        assert path.stat().st_mtime == 1
