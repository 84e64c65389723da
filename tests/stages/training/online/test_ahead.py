"""Rounds that are sampled ahead: of which policy, what that is called, and what is the same where none may be older."""

from pathlib import Path

import pytest
import torch
from support.online import trained, words_to_sort
from support.tiny_model import Heard, folder_bytes, make_model

from tunemill.stages.training.grpo.config import GrpoConfig
from tunemill.stages.training.online.ahead_body import Ahead
from tunemill.stages.training.online.journal import Journal

SETTINGS = {
    "num_generations": 2,
    "micro_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "max_completion_length": 4,
    "max_steps": 6,
    "save_strategy": "no",
    "reward_funcs": ["letters.varied"],
}
AHEAD = {"async_prefetch": True, "prefetch_depth": 2}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    torch.set_num_threads(1)
    return make_model(tmp_path_factory.mktemp("ahead") / "base", hidden_size=16, intermediate_size=24)


def run(folder: Path, base: Path, **keys):
    """The folder of the model, what was heard, and the journal."""
    heard = Heard()
    data = trained(folder / "run", base, words_to_sort()[:12], heard.report, **{**SETTINGS, **keys})
    return data, heard, Journal(folder / "run" / "checkpoints" / "journal")


def test_where_nothing_may_be_older_all_is_as_if_nothing_were_sampled_ahead(tmp_path, base):
    alone, first, _ = run(tmp_path / "alone", base)
    bounded, second, _ = run(tmp_path / "bounded", base, **AHEAD, replay_buffer_size=4, max_staleness=0)
    assert folder_bytes(bounded) == folder_bytes(alone)
    rewards = first.steps("reward")
    assert rewards and rewards == second.steps("reward")


def test_a_round_is_sampled_by_the_policy_of_so_many_rounds_before(tmp_path, base):
    _, heard, journal = run(tmp_path, base, **AHEAD, num_iterations=2)
    taken = journal.steps()
    # Rounds of two steps: round 2 is the first that is not of the model that training starts from.
    first = {one.completion.policy for one in journal.rollouts(0, 0)}
    assert first == {one.completion.policy for one in journal.rollouts(1, 0)} and len(first) == 1
    assert first == {one.completion.policy for one in journal.rollouts(2, 0)}
    assert heard.steps("staleness") == {1: 0, 2: 0, 3: 2, 4: 2, 5: 4, 6: 4}
    assert heard.summary["largest_staleness"] == 4 and heard.summary["rounds"] == 3
    assert journal.sampled(3, 0) is None, "no round is sampled that nothing learns from"
    assert taken[6].policy not in first
    assert heard.steps("mismatch")[1] < 1e-5 and 1 not in heard.steps("policy_moved")
    assert heard.steps("policy_moved")[5] > heard.steps("mismatch")[1] and 5 not in heard.steps("mismatch")
    # What the policy says of them when they are learned from, and what it said when they were sampled.
    (one, *_) = journal.rollouts(2, 0)
    assert one.policy_log_p != one.completion.log_p


@pytest.mark.slow
def test_groups_are_learned_from_again_and_prompts_are_asked_again(tmp_path, base):
    # Of words with an a all completions are as good, and no answer.
    _, heard, journal = run(
        tmp_path, base, replay_buffer_size=8, reroll_start_fraction=0.5, num_iterations=2,
        reward_funcs=["letters.half"], max_steps=8,
    )  # fmt: skip
    again = {step for step, share in heard.steps("learned_again").items() if share}
    assert again and min(again) > 2 and heard.steps("zero_advantage")[min(again)] > 0
    for number in {(step - 1) // 2 for step in again}:
        replayed = journal.replayed(number)
        assert len(replayed) % 2 == 0 and {one.round for one in replayed} <= set(range(number))
        for one in replayed:
            (before,) = (
                other
                for other in journal.rollouts(one.round, 0)
                if other.completion.seed == one.completion.seed
            )
            assert before.completion == one.completion and before.policy_log_p != one.policy_log_p
    assert heard.steps("asked_again") == {1: 0, 2: 0, 3: 0, 4: 0, 5: 0.5, 6: 0.5, 7: 0.5, 8: 0.5}
    rows = [{one.prompt_row for one in journal.rollouts(number, 0)} for number in range(4)]
    level = [row for row in sorted(rows[0] | rows[1]) if row in rows[2] | rows[3]]
    assert level, "prompts of rounds before"


def test_a_bound_cuts_what_is_asked_for_and_says_so_where_nothing_is_left_of_it():
    def config(**keys):
        rewards = {"reward_funcs": ["a.b"], "reward_code": ["/a.py"], "learning_rate": 1e-5}
        return GrpoConfig(**{**rewards, "micro_batch_size": 8, "async_prefetch": True, **keys})

    def idle(config):
        return {one.key for one in config.idle()}

    assert (config().rounds_ahead, config(prefetch_depth=3).rounds_ahead) == (1, 3)
    assert (
        config().correction == "sequence_mask" and GrpoConfig.model_fields["async_prefetch"].default is False
    )
    cut = config(prefetch_depth=3, max_staleness=5, num_iterations=2)
    # What is cut to 2 rounds is not what it is unset.
    assert cut.rounds_ahead == 2 and cut.sync_interval == 1 and not idle(cut)
    one = config(prefetch_depth=3, max_staleness=3, num_iterations=2)
    assert one.rounds_ahead == 1 and idle(one) == {"prefetch_depth"}
    none = config(max_staleness=1, num_iterations=2)
    assert none.rounds_ahead == 0 and none.correction is None and idle(none) == {"async_prefetch"}
    served = config(use_vllm=True, vllm_sync_interval=4)
    assert served.sync_interval == 4
    assert config(use_vllm=True, vllm_sync_interval=4, max_staleness=3).sync_interval == 3
    fresh = config(use_vllm=True, vllm_sync_interval=4, max_staleness=0)
    assert fresh.sync_interval == 1 and idle(fresh) == {"async_prefetch", "vllm_sync_interval"}
    off = config(async_prefetch=False, prefetch_depth=2, max_staleness=1, use_data_producer=True)
    assert idle(off) == {"prefetch_depth", "max_staleness", "use_data_producer"}


def test_jobs_are_done_in_order_and_what_one_raises_is_raised_by_who_waits():
    done = []

    def fail():
        raise ValueError("no")

    for beside in (False, True):
        ahead = Ahead(beside=beside)
        ahead.begin(0, lambda: done.append(0))
        ahead.begin(1, lambda: done.append(1))
        ahead.settle()
        assert ahead.has_begun(1) and not ahead.has_begun(2)
        if beside:
            ahead.begin(2, fail)
            with pytest.raises(ValueError, match="no"):
                ahead.wait_for(2)
        ahead.close()
    assert done == [0, 1, 0, 1]
