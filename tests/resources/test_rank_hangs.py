"""Which of several ranks hangs: by what they do, asked of real processes, and by where they are."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tunemill.resources.rank_hangs import hung
from tunemill.resources.rank_stillness import Look, Stillness, look_at

TORCH = "/p/site-packages/torch"
STARTED = (f"{TORCH}/distributed/elastic/multiprocessing/api.py", 9, "_wrap")
SLEEPS = (("/a/train.py", 5, "sorts"), STARTED)
WAITS = ((f"{TORCH}/distributed/distributed_c10d.py", 7, "barrier"), ("/a/train.py", 3, "loss"), STARTED)
COMPUTES = (("/a/train.py", 8, "sums"), STARTED)
GRADIENTS = (*[("/a/train.py", 8, "hook")] * 5, (f"{TORCH}/autograd/graph.py", 8, "backward"), STARTED)
EXCHANGES = ((f"{TORCH}/nn/parallel/distributed.py", 8, "forward"), STARTED)


@pytest.mark.parametrize(
    ("places", "still", "found"),
    [
        ({0: WAITS, 1: SLEEPS}, {0, 1}, {1}),
        ({0: WAITS, 1: SLEEPS, 2: SLEEPS}, {0, 1, 2}, {1, 2}),
        ({0: EXCHANGES, 1: SLEEPS}, {1}, {1}),
        # It was heard of last, or computes.
        ({0: WAITS, 1: SLEEPS}, {0}, set()),
        # All wait for something slow, or all for each other.
        ({0: SLEEPS, 1: SLEEPS}, {0, 1}, set()),
        ({0: WAITS, 1: WAITS}, {0, 1}, set()),
        # Another one has its own work, or does not answer.
        ({0: WAITS, 1: SLEEPS, 2: COMPUTES}, {0, 1}, set()),
        ({0: WAITS, 1: SLEEPS, 2: ()}, {0, 1}, set()),
        # It may wait for the others itself, further down.
        ({0: WAITS, 1: GRADIENTS}, {0, 1}, set()),
        ({0: WAITS, 1: EXCHANGES}, {0, 1}, set()),
        ({0: WAITS, 1: ()}, {0, 1}, set()),
    ],
)
def test_one_hangs_that_all_others_wait_for(places, still, found):
    assert hung(places, still) == {rank: places[rank] for rank in found}


def test_for_how_long_one_has_stood_still():
    def look(seconds=1.0, read=10, wakes=7, asleep=True):
        return Look(wakes, seconds, read, asleep)

    def seconds(*looks):
        still = Stillness()
        for now, one in looks:
            still.add(one, now)
        return still.seconds()

    assert seconds((0, look()), (1, look()), (4, look(1.05))) == 4
    moved = (look(2.0), look(read=11), look(wakes=8), look(asleep=False), None)
    for one in moved:
        assert seconds((0, look()), (1, look()), (2, one)) == 0
    assert seconds((0, look()), (1, look(asleep=False)), (2, look()), (3, look())) == 1
    # A machine was frozen in between.
    assert seconds((0, look()), (1, look()), (90, look()), (91, look())) == 1


def test_a_question_from_outside_is_no_movement():
    still = Stillness()
    still.add(Look(7, 1.0, 10, True), 0)
    still.pardon(Look(9, 1.3, 90, False))
    still.add(Look(9, 1.3, 90, True), 1)
    assert still.seconds() == 1


@pytest.mark.skipif(look_at(os.getpid()) is None, reason="this kernel does not tell what a process waits for")
@pytest.mark.parametrize(
    ("does", "asleep"),
    [
        ("time.sleep(60)", True),
        ("threading.Event().wait()", True),
        ("threading.Thread(target=time.sleep, args=(60,)).start()", True),
        ("os.read(os.pipe()[0], 1)", False),
        ("socket.create_server(('127.0.0.1', 0)).accept()", False),
        ("subprocess.run(['sleep', '6'])", False),
        ("subprocess.Popen(['sleep', '6']); time.sleep(60)", False),
        ("exec('while True: pass')", False),
        ("threading.Thread(target=os.read, args=(os.pipe()[0], 1)).start()", False),
    ],
)
def test_a_process_is_asleep_that_waits_for_nothing_but_itself(does, asleep):
    code = f"import os, socket, subprocess, threading, time\nprint(flush=True)\n{does}"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as one:
        one.stdout.readline()
        time.sleep(0.5)
        try:
            look = look_at(one.pid)
            assert look is not None and look.asleep == asleep
            os.kill(one.pid, signal.SIGSTOP)
            time.sleep(0.1)
            assert not look_at(one.pid).asleep
        finally:
            one.kill()
    assert look_at(one.pid) is None


@pytest.mark.skipif(look_at(os.getpid()) is None, reason="this kernel does not tell what a process waits for")
def test_one_that_asks_again_and_again_wakes_up():
    code = "import time\nprint(flush=True)\nwhile True: time.sleep(0.3)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as one:
        one.stdout.readline()
        looks = []
        for _ in range(2):
            time.sleep(0.7)
            looks.append(look_at(one.pid).wakes)
        one.kill()
    assert looks[0] < looks[1]
