"""Two machines that do anything to one store in any order, and are killed anywhere: nothing wrong, half or lost."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
from resources.team_stress import NAMES, fault_of, note, obtain
from resources.team_work import entries, key_of, store_of
from test_layout import ROOT

from tunemill.resources.errors import StoreError
from tunemill.resources.team_care import verify_team

WORK = ROOT / "tests" / "resources" / "team_stress.py"
WITHOUT_END = 100_000


def machine(state, url, log, seed, rounds=WITHOUT_END):
    return subprocess.Popen(
        [sys.executable, str(WORK), str(state), url, str(log), str(seed), str(rounds)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def kill(process, log):
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    note(log, "killed", pid=process.pid)


def lines_of(log):
    return [
        json.loads(line)
        for line in log.read_text().splitlines()
        if line.startswith("{") and line.endswith("}")
    ]


def began(process, log):
    until = time.monotonic() + 120
    while not any(one["pid"] == process.pid for one in lines_of(log)):
        assert process.poll() is None and time.monotonic() < until, process.communicate()[0]
        time.sleep(0.05)


def spans(lines):
    """What takes artifacts away, as (begin, end, names). Whoever is killed has done it by then, or not at all."""
    found, open_ones = [], {}
    for one in lines:
        if one["word"] in ("prunes", "damages"):
            open_ones[one["pid"]] = one
        if one["word"] in ("pruned", "damaged", "error", "refused", "killed") and one["pid"] in open_ones:
            begun = open_ones.pop(one["pid"])
            names = one.get("names", [begun["name"]] if begun["name"] else NAMES)
            found.append((begun["at"], one["at"] + (1.0 if one["word"] == "killed" else 0.0), names))
    assert not open_ones
    return found


def computed_twice(lines):
    """What was computed although it was in the team's store, whole, and nothing had taken it away."""
    gone = spans(lines)
    wrong = []
    for begin in (one for one in lines if one["word"] == "begin"):
        name, at = begin["name"], begin["at"]
        # Others may have taken it away before whoever published it has said so.
        there = [
            one["since"]
            for one in lines
            if one["word"] == "published" and one["name"] == name and one["at"] < at
        ]
        excused = there and any(
            name in names and end >= there[-1] and start <= at for start, end, names in gone
        )
        if there and not excused:
            wrong.append(begin)
    return wrong


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [6, pytest.param(50, marks=pytest.mark.exhaustive)])
def test_two_machines_that_do_anything_and_are_killed_anywhere(rounds, url, tmp_path, log):
    chance = random.Random(rounds)
    log.touch()
    seeds = iter(range(1000))
    states = [tmp_path / "m0", tmp_path / "m1"]
    running = [machine(state, url, log, next(seeds)) for state in states]
    try:
        for _ in range(rounds):
            number = chance.randrange(2)
            began(running[number], log)
            time.sleep(chance.uniform(0.1, 2.5))
            assert running[number].poll() is None, running[number].communicate()[0]
            kill(running[number], log)
            running[number] = machine(states[number], url, log, next(seeds))
    finally:
        for one in running:
            kill(one, log)
    lines = lines_of(log)
    assert [one for one in lines if one["word"] == "error"] == []
    assert computed_twice(lines) == []
    taken_away = {name for *_, names in spans(lines) for name in names}
    assert {one["name"] for one in lines if one["word"] == "found wrong"} <= taken_away
    done = {one["word"] for one in lines}
    assert {"begin", "published"} <= done and (rounds < 50 or {"again", "pruned", "damaged"} <= done)
    settle(states, url, log)


def settle(states, url, log):
    """What runs without a fault make of it: both machines have everything, and whoever comes anew, and all is whole."""
    look = states[0].parent / "look"
    for state in [*states, look]:
        for name in NAMES:
            store = store_of(state, url)
            # Of damage that nobody has met yet the first says so.
            with suppress(StoreError):
                obtain(store, name, log)
            obtain(store_of(state, url), name, log)
            found = store_of(state, url).lookup("stage", key_of(name))
            assert fault_of(found, name) is None and store.verify(found.folder) == []
    assert len(entries(store_of(look, url))) == len(NAMES)
    assert all(wrong is None for _, wrong in verify_team(store_of(look, url).team.objects))
