"""Step arithmetic, by hand."""

import pytest

from tunemill.stages.training.schedule import (
    Schedule,
    due_steps,
    logging_interval,
    make_schedule,
    warmup_steps,
)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # 10 sequences in micro batches of 2: 5; two of them a step: 3, the last with one. 1.5 epochs: 4.5 steps, so 5.
        ((10, 2, 2, 1.5, None), (3, 5)),
        ((10, 2, 2, 1.5, 7), (3, 7)),
        ((7, 2, 1, 3.0, None), (4, 12)),
        ((1, 8, 4, 0.1, None), (1, 1)),
        # 1.1 epochs of 10 steps are 11, where floating point has 11.000000000000002 and so 12.
        ((10, 1, 1, 1.1, None), (10, 11)),
    ],
)
def test_steps(arguments: tuple[int, int, int, float, int | None], expected: tuple[int, int]) -> None:
    schedule = make_schedule(*arguments)
    assert (schedule.steps_per_epoch, schedule.total) == expected


def test_place_of_a_step() -> None:
    schedule = make_schedule(10, 2, 2, 2.0, None)
    assert [schedule.place(step) for step in range(1, 7)] == [
        (0, 0, 4), (0, 4, 8), (0, 8, 10), (1, 0, 4), (1, 4, 8), (1, 8, 10),
    ]  # fmt: skip


def test_warmup() -> None:
    assert warmup_steps(1000, 0, None) == 0
    assert warmup_steps(1000, 1, None) == 1
    assert warmup_steps(1000, None, 0.25) == 250
    assert warmup_steps(1000, None, None) == 30
    assert warmup_steps(10_000, None, None) == 100
    assert warmup_steps(40, None, None) == 2
    assert warmup_steps(20, None, None) == 0
    # A share is worked out as a person would: floating point has 28.999999999999996 and 57.99999999999999.
    assert warmup_steps(100, None, 0.29) == 29
    assert warmup_steps(100, None, 0.58) == 58
    assert warmup_steps(100, 0.29, None) == 29
    assert warmup_steps(30, 0.1, None) == 3
    assert [warmup_steps(1000, None, thousandths / 1000) for thousandths in range(2, 1000)] == list(
        range(2, 1000)
    )


def test_logging_interval() -> None:
    assert [logging_interval(total, None) for total in (20, 400, 1000, 10_000)] == [1, 2, 5, 10]
    assert logging_interval(10_000, 3) == 3


def test_due_steps() -> None:
    schedule = Schedule(sequences=40, per_step=4, steps_per_epoch=10, total=25)
    nothing = {"every": None, "per_epoch": None, "strategy": None}
    assert due_steps(schedule, **nothing, default="no") == frozenset()
    assert due_steps(schedule, **nothing, default="epoch") == {10, 20}
    assert due_steps(schedule, **{**nothing, "strategy": "no"}, default="epoch") == frozenset()
    assert due_steps(schedule, **{**nothing, "strategy": "epoch"}, default="no") == {10, 20}
    assert due_steps(schedule, **{**nothing, "every": 12, "strategy": "steps"}, default="no") == {12, 24}
    # A quarter of 25 steps is 6.25: every 7.
    assert due_steps(schedule, **{**nothing, "every": 0.25}, default="no") == {7, 14, 21}
    # 7 of 100 steps, where floating point has 7.000000000000001 and so 8.
    hundred = Schedule(sequences=100, per_step=1, steps_per_epoch=100, total=100)
    for share in range(1, 100):
        due = due_steps(hundred, **{**nothing, "every": share / 100}, default="no")
        assert min(due) == share
    assert due_steps(schedule, **{**nothing, "per_epoch": 3}, default="no") == {4, 8, 12, 16, 20, 24}
