"""Which of several ranks is named when they fail: the one that failed first, and not because of another."""

import pytest

from tunemill.resources.machine_failures import machine_failed
from tunemill.resources.rank_failures import STOPPED, Standing, verdict

LOST = "RuntimeError: [pair.cc:553] Connection closed by peer [127.0.0.1]:22405"
WAITED = "RuntimeError: [unbound_buffer.cc:78] Timed out waiting 1000ms for recv operation to complete"


def failed(at, message="", of_user=False, **more):
    return Standing(pid=1, failed_at=at, message=message, of_user=of_user, **more)


def said(tmp_path, *standings, exits=None):
    return verdict(standings, exits or {}, lambda rank: tmp_path / f"rank_{rank}.log")


def test_a_users_mistake_is_told_as_it_is_whoever_noticed_first(tmp_path):
    found = said(tmp_path, failed(1.0, LOST), failed(1.2, "rows.jsonl:3: mend it", of_user=True))
    assert found == {"type": "failed", "message": "rows.jsonl:3: mend it"}


def test_a_killed_rank_is_named_and_not_those_that_missed_it(tmp_path):
    found = said(tmp_path, failed(1.1, LOST), failed(1.0, exit=-9))
    assert found["message"].startswith(
        "rank 1 of 2 was ended by SIGKILL (often the machine ran out of memory)"
    )
    assert found["again"] and found["type"] == "crashed"
    assert "ended by SIGSEGV;" in said(tmp_path, failed(1.0), failed(1.1, LOST), exits={0: -11})["message"]


def test_a_killed_rank_is_named_where_another_told_of_it_before_its_end_was_noticed(tmp_path):
    assert (
        "rank 1 of 2 was ended by SIGKILL"
        in said(tmp_path, failed(1.0, LOST), failed(1.1, exit=-9))["message"]
    )
    found = said(tmp_path, failed(1.0, "KeyError: 'ours'"), failed(1.1, exit=-9))
    assert found["message"].startswith("rank 0 of 2 failed")


def test_one_that_the_agent_ended_afterwards_is_not_named(tmp_path):
    found = said(tmp_path, failed(1.0, "KeyError: 'ours'"), failed(1.3, exit=-15))
    assert found["message"] == "rank 0 of 2 failed; the end of what it said:\nKeyError: 'ours'"
    assert not found["again"]


def test_who_waited_in_vain_names_the_one_that_it_waited_for(tmp_path):
    silent = failed(9.2, exit=-15, heard_at=3.0, last="at 5 of 9 steps")
    found = said(tmp_path, failed(9.0, WAITED, heard_at=9.0), silent)
    assert "rank 0 of 2 waited" in found["message"] and "ddp_timeout" in found["message"]
    assert "rank 1 was heard of least (it was at 5 of 9 steps)" in found["message"] and found["again"]


def test_of_those_that_were_waited_for_the_one_is_named_that_waits_for_none(tmp_path):
    waiting = (("/p/site-packages/torch/distributed/c10d.py", 7, "barrier"), ("/home/a/train.py", 3, "loss"))
    slow = (("/p/site-packages/numpy/core.py", 9, "sort"), ("/home/a/train.py", 5, "loss"))
    ranks = [failed(9.0, WAITED, heard_at=9.0), Standing(frames=waiting), Standing(heard_at=8.0, frames=slow)]
    found = said(tmp_path, *ranks)["message"]
    assert "rank 2 was heard of least" in found
    assert (
        "It is at /p/site-packages/numpy/core.py:9 (sort) in a call from /home/a/train.py:5 (loss)." in found
    )


def test_what_a_watchdog_of_nccl_has_printed_is_read(tmp_path):
    (tmp_path / "rank_0.log").write_text(
        "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(...)\n"
    )
    found = said(tmp_path, failed(9.0, exit=-6, heard_at=9.0), failed(9.5, exit=-15, heard_at=1.0))
    assert "waited for the others" in found["message"] and "Watchdog caught" in found["message"]


def test_a_stopped_rank_is_named(tmp_path):
    assert (
        "rank 1 of 2 was stopped (SIGSTOP)"
        in said(tmp_path, failed(2.0, LOST), failed(1.0, STOPPED))["message"]
    )


@pytest.mark.parametrize(
    ("text", "again"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory", True),
        ("RuntimeError: CUDA error: an illegal memory access was encountered", True),
        ("RuntimeError: CUDA error: device-side assert triggered\nCUDA kernel errors might be", False),
        ("KeyError: 'ours'", False),
    ],
)
def test_only_what_a_machine_does_may_go_well_another_time(text, again):
    assert machine_failed(text) == again
