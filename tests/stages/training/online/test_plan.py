"""Which prompts a round samples, and what its steps learn from."""

from collections import Counter

from tunemill.stages.training.online.plan import Plan

PLAN = Plan(prompts=11, num_generations=2, per_step=4, per_round=8, num_iterations=3, seed=7)


def test_a_round_has_whole_groups_and_each_completion_is_learned_from_so_often():
    assert (PLAN.groups, PLAN.steps_of_round, PLAN.rounds_of_epoch) == (4, 6, 2)
    assert PLAN.examples == 2 * 8 * 3
    steps = [step for step in range(12) if PLAN.round_of(step) == 1]
    assert steps == list(range(6, 12))
    learned = Counter(slot for step in steps for slot in PLAN.slots(step))
    assert learned == Counter(dict.fromkeys(range(8), 3))
    # Of groups of two, each step has whole ones.
    assert all(PLAN.slots(step).start % 2 == 0 for step in steps)


def test_an_epoch_asks_each_prompt_at_most_once_and_the_next_one_in_another_order():
    epochs = [
        [prompt for number in (first, first + 1) for prompt in PLAN.prompts_of(number)] for first in (0, 2, 4)
    ]
    assert epochs[0] == list(range(8))
    assert all(len(set(epoch)) == 8 and set(epoch) <= set(range(11)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    kept = Plan(**{**vars(PLAN), "keep_order": True})
    assert kept.prompts_of(2) == kept.prompts_of(0)


def test_no_two_completions_of_a_training_share_a_seed():
    seeds = [seed for number in range(6) for group in range(4) for seed in PLAN.seeds(number, group)]
    assert len(set(seeds)) == len(seeds) == 48
    assert PLAN.seeds(3, 1) == PLAN.seeds(3, 1)
    assert Plan(**{**vars(PLAN), "seed": 8}).seeds(3, 1) != PLAN.seeds(3, 1)
