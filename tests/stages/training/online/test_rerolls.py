"""Which prompts are asked again, and when: by hand."""

import numpy as np

from tunemill.stages.training.grpo.config import GrpoConfig
from tunemill.stages.training.online.plan import Plan
from tunemill.stages.training.online.rerolls import Prompts, Waiting, answered

# Rounds of three prompts: 0 1 2, 3 4 5, 6 7 8, and in the next epoch the same again.
PLAN = Plan(prompts=9, num_generations=2, per_step=6, per_round=6, num_iterations=1, seed=7, keep_order=True)


def rounds(failing, *, start=0, most=1, ahead=0, count=6):
    """The prompts of so many rounds, where those of `failing` are never answered."""

    def heard(_number, prompts):
        return {prompt: prompt not in failing for prompt in prompts}

    prompts = Prompts(PLAN, start, most, ahead, heard)
    return [prompts.of(number) for number in range(count)], [
        prompts.asked_again(number) for number in range(count)
    ]


def test_a_prompt_that_failed_stands_in_place_of_the_last_of_the_next_round_and_fails_again():
    made, again = rounds({1, 3})
    # 1 fails in round 0; in round 1 it fails again and 3 before it, so 3 has waited longer. In round 3 it is 1's turn.
    assert made == [[0, 1, 2], [3, 4, 1], [6, 7, 3], [0, 1, 3], [3, 4, 1], [6, 7, 3]]
    assert again == [0, 1, 1, 1, 1, 1]


def test_none_is_asked_again_before_its_time_and_no_more_than_allowed():
    assert rounds({0, 1, 2}, start=2)[0][:3] == [[0, 1, 2], [3, 4, 5], [6, 7, 0]]
    assert rounds({0, 1, 2}, most=2)[0][1] == [3, 0, 1]
    assert rounds({0, 1, 2}, most=9)[0][1] == [0, 1, 2]
    assert rounds(set())[1] == [0] * 6


def test_what_is_sampled_ahead_knows_less():
    made, _ = rounds({1}, ahead=1)
    assert made[:3] == [[0, 1, 2], [3, 4, 5], [6, 7, 1]]


def test_one_that_is_answered_in_its_own_turn_waits_no_longer():
    waiting = Waiting((4, 2)).heard({2: True, 5: False, 4: False})
    assert waiting.prompts == (4, 5)
    # It stands in the round already, and goes on waiting.
    assert waiting.put_into([4, 6], 1) == ([4, 5], Waiting((4,)))


def test_answered_is_what_has_a_reward_above_0():
    nan = np.nan
    rewards_n = np.array([0.0, 0.2, 0.0, -1.0, nan, nan, nan, 0.0])
    assert answered([7, 8, 9, 6], rewards_n) == {7: True, 8: False, 6: False}


def test_from_which_round_on():
    settings = {
        "reward_funcs": ["a.b"],
        "reward_code": ["/a.py"],
        "micro_batch_size": 8,
        "learning_rate": 1e-5,
    }
    config = GrpoConfig(**settings, reroll_start_fraction=0.5)
    assert config.rerolls and [config.first_reroll(count) for count in (1, 4, 5)] == [1, 2, 3]
    assert GrpoConfig(**settings, reroll_start_fraction=0.07).first_reroll(100) == 7
    assert not GrpoConfig(**settings).rerolls and GrpoConfig(**settings).first_reroll(7) == 7
