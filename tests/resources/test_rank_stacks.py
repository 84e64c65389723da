"""Where a process is, asked from outside: one that sleeps, one that holds Python's lock, one that is stopped."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tunemill.resources.rank_stacks import ask, place, threads_of, told

ANSWERS = """
import re, sys, threading, time
from pathlib import Path
from tunemill.resources.rank_stacks import answer
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
answer(Path(sys.argv[1]))
def sleeps():
    time.sleep(60)
def holds():
    # One call of C that never lets another thread run.
    re.match(r"(a+)+$", "a" * 40 + "b")
print("here", flush=True)
globals()[sys.argv[2]]()
"""


@pytest.fixture
def started(tmp_path):
    processes = []

    def start(rank, what):
        file = tmp_path / f"rank_{rank}.stack"
        one = subprocess.Popen([sys.executable, "-c", ANSWERS, str(file), what], stdout=subprocess.PIPE)
        processes.append(one)
        assert one.stdout.readline() == b"here\n"
        return one.pid, file

    yield start
    for one in processes:
        one.kill()
        one.wait()


def test_each_tells_where_it_is_and_goes_on(started):
    asked = {rank: started(rank, what) for rank, what in enumerate(["sleeps", "holds", "sleeps"])}
    os.kill(asked[2][0], signal.SIGSTOP)
    time.sleep(0.2)
    for _ in range(2):
        found = ask(asked)
        assert found.keys() == {0, 1}
        sleeps, holds = found[0][-1], found[1][-1]
        assert sleeps[0][2] == "sleeps" and holds[0][2] == "match" and holds[1][2] == "holds"
        assert place(holds).endswith("(holds)") or "in a call from" not in place(holds)


def test_those_that_wait_for_others_are_told_last():
    text = """Thread 0x1 (most recent call first):
  File "/a/other.py", line 1 in run

Current thread 0x2 (most recent call first):
  File "/p/site-packages/torch/distributed/c10d.py", line 7 in barrier
  File "/a/train.py", line 3 in <module>
"""
    _, waiting = threads_of(text)
    assert waiting[0] == ("/p/site-packages/torch/distributed/c10d.py", 7, "barrier") and len(waiting) == 2
    said = told({0: waiting, 1: (("/a/train.py", 5, "sorts"),)}, 26.4)
    assert said.startswith(
        "no process has moved on for 26 s: rank 1 is at /a/train.py:5 (sorts); rank 0 waits"
    )
    assert "in a call from /a/train.py:3 (<module>)" in said
