"""A run that is killed anywhere goes on as if it had not been: the same bytes, nothing sampled or judged twice."""

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from support.modules import load_module
from support.tiny_model import Heard, folder_bytes

SCRIPT = Path(__file__).with_name("killed_online.py")
TESTS = Path(__file__).parents[3]


class EndedError(BaseException):
    """Ends a run in this process, as nothing catches it."""


@pytest.fixture(scope="module")
def killed_online() -> Any:
    module = load_module(SCRIPT)
    threads = torch.get_num_threads()
    yield module
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def watch(killed_online):
    made = killed_online.Watch()
    yield made
    made.on_event = None


def ended_everywhere(killed_online, watch, case, folder):
    """End a run before each event of its journal in turn, each time going on: the events, and what it said."""
    events, told = [], Heard()

    def attempt():
        heard, new = Heard(), []

        def on_event(name):
            # Each attempt gets one event further than the last.
            new.append(name)
            if len(new) > 1:
                raise EndedError

        watch.on_event = on_event
        try:
            killed_online.run(case, folder, heard.report)
            return True
        except EndedError:
            return False
        finally:
            watch.on_event = None
            events.extend(new[:1])
            told.events[:] = heard.events

    for _ in range(60):
        if attempt():
            return events, told
    raise AssertionError("it never ends")


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        "lora",
        "ahead",
        *(
            pytest.param(one, marks=pytest.mark.exhaustive)
            for one in ("full", "streamed", "ebft", "strided", "environments", "rollout_func")
        ),
    ],
)
def test_ended_before_each_event_of_the_journal(killed_online, watch, tmp_path, case):
    whole = Heard()
    expected = killed_online.run(case, tmp_path / "whole", whole.report)
    events, told = ended_everywhere(killed_online, watch, case, tmp_path / "ended")
    data = tmp_path / "ended" / "data"
    assert folder_bytes(data) == folder_bytes(expected)
    assert told.summary["strayed"] == 0 and told.summary["generated_tokens"] == 0
    counted = Counter(events)
    steps = killed_online.CASES[case]["max_steps"]
    assert counted.pop("step") == steps
    evaluated = [name for name in counted if name.startswith("evaluated")]
    assert len(evaluated) == (4 if case in killed_online.EVALUATED else 0)
    assert [told.steps("eval_reward").get(8)] == [whole.steps("eval_reward").get(8)]
    # No group was sampled again that was whole, no round judged again, and no evaluation made again.
    assert set(counted.values()) == {1}
    rollouts = [name for name in counted if name.startswith("rollouts")]
    scores = [name for name in counted if name.startswith("scores") and name.count("-") == 1]
    assert len(rollouts) == 2 * len(scores) == {"full": 6, "ahead": 10, "strided": 10}.get(case, 4)
    parts = [name for name in counted if name.startswith("scores") and name.count("-") == 2]
    assert len(parts) == (4 if case == "streamed" else 0)
    sampled = [name for name in counted if name.startswith("sampled")]
    assert len(sampled) == (len(rollouts) if case in ("ahead", "streamed") else 0)
    assert bool([name for name in counted if name.startswith("replayed")]) == (case == "ahead")
    first, second = (tmp_path / run / "logs" / "rollouts.arrow" for run in ("whole", "ended"))
    assert first.read_bytes() == second.read_bytes()


# In the middle of a round's groups, between groups and rewards, and in the second round's steps or groups.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "kills"),
    [
        ("lora", (2, 1, 9)),
        ("ebft", (10,)),
        ("strided", (18,)),
        ("environments", (2, 9)),
        ("rollout_func", (2, 9)),
    ],
)
def test_killed_and_killed_again(killed_online, tmp_path, case, kills):
    whole, resumed = Heard(), Heard()
    expected = killed_online.run(case, tmp_path / "whole", whole.report)
    for after in kills:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(TESTS), str(TESTS.parent)))}
        child = subprocess.run(
            [sys.executable, str(SCRIPT), case, str(tmp_path / "killed"), str(after)],
            env={**environment, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert child.returncode == -signal.SIGKILL, child.stderr
    data = killed_online.run(case, tmp_path / "killed", resumed.report)
    assert folder_bytes(data) == folder_bytes(expected)
    assert resumed.summary["strayed"] == 0 and resumed.summary["replayed_steps"] > 0
    assert resumed.summary["generated_tokens"] < whole.summary["generated_tokens"]
