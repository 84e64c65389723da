"""The same work in several processes: in order, with its errors, and gone when the one that asked is gone."""

import os
import signal
import subprocess
import sys
import time

import pytest
from support.work import ended, started_at

from tunemill.stages.data.rows.workers import BATCHES_FOR_ONE, MOST_WORKERS, in_workers, started, workers_for
from tunemill.stages.errors import SettingError


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    """The other processes find the work."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))


def worked(items, arguments, workers):
    with started(started_at.__module__, workers) as lines:
        yield from in_workers(items, started_at, arguments, lines)


def test_results_come_in_order_whatever_each_takes():
    items = [(number, 0.05 if number % 3 == 0 else 0) for number in range(12)]
    assert [number for number, _ in worked(items, ("x",), 3)] == list(range(12))


def test_the_work_is_made_once_in_each_process():
    found = list(worked([(number, 0) for number in range(9)], ("x",), 2))
    assert len({process for _, process in found}) == 2 and os.getpid() not in {
        process for _, process in found
    }


def test_a_file_where_a_person_works_is_not_the_module_of_its_name(tmp_path, monkeypatch):
    (tmp_path / "socket.py").write_text("raise RuntimeError")
    monkeypatch.chdir(tmp_path)
    assert [number for number, _ in worked([(1, 0)], ("x",), 1)] == [1]


def test_an_error_of_the_work_is_raised_here():
    with pytest.raises(SettingError, match="number 3 is not wanted"):
        list(worked([(number, 0) for number in (1, 3, 2)], ("x", 3), 2))


def test_an_error_before_the_work_is_raised_here():
    with pytest.raises(SettingError, match="no such work"):
        list(worked([(1, 0)], ("no",), 2))


def test_a_killed_process_is_an_error_with_a_way_out():
    results = worked([(number, 0.2) for number in range(20)], ("x",), 2)
    _, process = next(results)
    os.kill(process, signal.SIGKILL)
    with pytest.raises(SettingError, match=r"was killed.*dataset_num_proc: 1"):
        list(results)


def test_an_interrupt_ends_a_process_without_a_word(capfd):
    with started(started_at.__module__, 1) as lines:
        ((_, process),) = in_workers([(1, 0)], started_at, ("x",), lines)
        os.kill(process, signal.SIGINT)
        assert lines[0].process.wait(10) == -signal.SIGINT
    assert capfd.readouterr() == ("", "")


def test_no_process_outlives_the_one_that_asked():
    code = (
        "from support.work import started_at\n"
        "from tunemill.stages.data.rows.workers import in_workers, started\n"
        "with started('support.work', 2) as lines:\n"
        "    items = ((n, 0.1) for n in range(10**6))\n"
        "    for _, process in in_workers(items, started_at, ('x',), lines):\n"
        "        print(process, flush=True)\n"
    )
    asked = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    processes = {int(asked.stdout.readline()) for _ in range(4)}
    asked.kill()
    asked.wait()
    assert len(processes) == 2
    until = time.monotonic() + 20
    while not all(map(ended, processes)):
        assert time.monotonic() < until, "they go on"
        time.sleep(0.05)


def test_few_batches_are_not_worth_a_process():
    usual = min(len(os.sched_getaffinity(0)), MOST_WORKERS)
    assert workers_for(1, None) == workers_for(BATCHES_FOR_ONE * 2 - 1, None) == 1
    assert workers_for(BATCHES_FOR_ONE * 100, None) == usual
    assert workers_for(BATCHES_FOR_ONE * 100, 3) == 3
    assert workers_for(BATCHES_FOR_ONE * 2, 16) == 2
