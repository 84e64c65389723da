"""What each of several processes trains of a step: together exactly the micro batches of one process."""

import itertools

import pytest

from tunemill.stages.training.schedule import make_schedule
from tunemill.stages.training.shares import Share

SIZES = [
    (sequences, micro, ranks, each)
    for sequences, micro, ranks, each in itertools.product(
        (1, 2, 7, 8, 9, 23), (1, 2, 3), (1, 2, 3, 4), (1, 2)
    )
]


@pytest.mark.parametrize(("sequences", "micro", "ranks", "each"), SIZES)
def test_every_step_has_the_rows_of_one_process(sequences, micro, ranks, each):
    schedule = make_schedule(sequences, micro, ranks * each, 1, None)
    shares = [Share(schedule, micro, ranks, rank) for rank in range(ranks)]
    batches = [list(share) for share in shares]
    assert {share.accumulation for share in shares} == {each}
    assert {len(one) for one in batches} == {len(share) for share in shares} and len(
        set(map(len, batches))
    ) == 1
    assert all(one for rank in batches for one in rank), "each has something to compute"
    alone = list(Share(schedule, micro))
    for step in range(1, schedule.steps_per_epoch + 1):
        _, first, end = schedule.place(step)
        found = {
            share.number(at): batch
            for share, mine in zip(shares, batches, strict=True)
            for at, batch in enumerate(mine[(step - 1) * each : step * each])
            if share.counts(step, at)
        }
        expected = alone[(step - 1) * ranks * each : step * ranks * each]
        assert [found[number] for number in sorted(found)] == expected
        assert list(itertools.chain.from_iterable(expected)) == list(range(first, end))
        assert shares[0].micro_batches(step) == len(found)
