"""Which groups are learned from again, and when: by hand."""

import numpy as np

from tunemill.stages.training.grpo.config import GrpoConfig
from tunemill.stages.training.online.advantages import advantages
from tunemill.stages.training.online.replay import Buffer, Held, Replays, signals

SETTINGS = {"reward_funcs": ["a.b"], "reward_code": ["/a.py"], "micro_batch_size": 8, "learning_rate": 1e-5}


def test_there_is_as_much_to_learn_as_advantages_and_deviation_say():
    rewards_n1 = np.array([[0.0], [1.0], [0.1], [0.1], [0.0], [0.5]])
    level, held = signals(3, advantages(rewards_n1, np.ones(1), 2), 2)
    assert level == [1]
    # Of 0 and x: deviation x / sqrt(2), advantages of x / 2 by that and 0.0001.
    for one, x in zip(held, (1.0, 0.5), strict=True):
        deviation = x / np.sqrt(2)
        assert np.isclose(one.signal, x / (deviation + 1e-4) * deviation)
    assert [(one.round, one.group) for one in held] == [(3, 0), (3, 2)]


def test_equal_rewards_are_level_however_their_mean_is_rounded():
    rewards_n1 = np.full((3, 1), 0.1)
    assert signals(0, advantages(rewards_n1, np.ones(1), 3), 3) == ([0], [])


def test_the_best_are_held_and_the_newer_one_of_two_that_are_as_good():
    buffer = Buffer().keep([Held(0, 0, 1.0), Held(0, 1, 3.0)], 2).keep([Held(1, 0, 1.0), Held(1, 1, 0.5)], 2)
    assert buffer.held == (Held(0, 1, 3.0), Held(1, 0, 1.0))
    chosen, left = buffer.fill([4, 2, 3])
    assert chosen == {4: Held(0, 1, 3.0), 2: Held(1, 0, 1.0)} and left.held == ()
    assert buffer.since(1).held == (Held(1, 0, 1.0),)


def test_a_group_is_learned_from_again_once_and_only_while_it_is_young():
    found = [([], [Held(0, 0, 2.0), Held(0, 1, 1.0)]), ([0], [Held(1, 1, 3.0)]), ([0, 1], []), ([0], [])]
    replays = Replays(9, lambda _number: 0, found.__getitem__)
    # Asked in any order, as a run that goes on does.
    assert replays.of(2) == {0: Held(1, 1, 3.0), 1: Held(0, 1, 1.0)}
    assert [replays.of(number) for number in (0, 1, 3)] == [{}, {0: Held(0, 0, 2.0)}, {}]
    young = Replays(9, lambda number: number - 1, found.__getitem__)
    assert young.of(2) == {0: Held(1, 1, 3.0)}


def test_how_old_it_may_be():
    def config(**keys):
        return GrpoConfig(**{**SETTINGS, "replay_buffer_size": 4, **keys})

    assert config().replays and config().oldest_round(9) == 0
    assert not config(max_staleness=0).replays and not config(replay_buffer_size=0).replays
    three = config(max_staleness=3)
    assert [three.oldest_round(number) for number in (2, 3, 4, 9)] == [0, 0, 1, 6]
    # Rounds of two steps; and round r is sampled after round r - 2.
    assert config(max_staleness=3, num_iterations=2).oldest_round(9) == 8
    ahead = config(max_staleness=3, async_prefetch=True, prefetch_depth=2)
    assert ahead.oldest_round(9) == 8 and ahead.oldest_round(3) == 0
    assert {one.key for one in config(max_staleness=0).idle()} == {"replay_buffer_size"}
