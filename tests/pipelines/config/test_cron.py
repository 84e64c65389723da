"""Times of schedules: what is taken is what Dagster takes, and what is refused says why."""

import random

import pytest
from dagster._utils.schedules import is_valid_cron_string

from tunemill.pipelines.config.cron import NICKNAMES, fault_of_cron, fault_of_timezone

ATOMS = "* * 0 5 23 59 60 1-5 5-1 */2 */0 1/2 1-9/3 jan mon dec sun 7 31 30 feb 8 24 1,2 mon-fri a *-3 L ? 12 1-31 -1"


def test_what_is_taken_dagster_takes_too():
    pick, atoms = random.Random(7), ATOMS.split()
    lines = [" ".join(pick.choice(atoms) for _ in range(5)) for _ in range(8_000)]
    taken = [line for line in [*lines, *NICKNAMES] if fault_of_cron(line) is None]
    assert len(taken) > 50
    assert [line for line in taken if not is_valid_cron_string(line)] == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 3 * *", "cron has five fields, and these are 4"),
        ("0 0 3 * * *", "cron has five fields, and these are 6"),
        ("60 3 * * *", "minute: 60 is not between 0 and 59"),
        ("0 3 * * moon", "day of the week: moon is no number"),
        ("0 3 31 2,4 *", "no month that is named has a day 31"),
        ("0 9-5 * * *", "hour: 9-5 ends before it begins"),
        ("*/0 * * * *", "minute: */0: a step is between 1 and 59"),
        ("@noon", "there is no @noon"),
        ("", "cron has five fields, and these are 0"),
    ],
)
def test_what_is_refused_says_what_is_wrong(line, said):
    assert said in (fault_of_cron(line) or "")


def test_a_time_zone_is_one_of_the_database():
    assert fault_of_timezone("Europe/Berlin") is None
    assert "did you mean Europe/Berlin?" in (fault_of_timezone("Europe/Berln") or "")
    assert fault_of_timezone("../../etc/passwd") and fault_of_timezone("")
