"""Completions that were kept: chosen, summed up, and scored anew without sampling."""

import pytest
from support.kept_rollouts import keep

from tunemill.stages.errors import UserError
from tunemill.stages.training.online.browsed import changes, read_kept, rescored
from tunemill.stages.training.online.reward_asking import rewards_by
from tunemill.stages.training.online.reward_keys import RewardKeys

REWARDS = """
def correct(completions, answer, **kwargs):
    return [float(one[0]["content"] == right) for one, right in zip(completions, answer)]

def short(completions, prompts, completion_ids, **kwargs):
    assert prompts[0][0]["role"] == "user"
    return [1.0 if len(ids) < 3 else None for ids in completion_ids]

def behind(completions, trainer_state, **kwargs):
    return [trainer_state.global_step] * len(completions)

def fails(completions, **kwargs):
    return [1 / (one[0]["content"] != "x") for one in completions]
"""


@pytest.fixture
def kept(tmp_path):
    (tmp_path / "logs").mkdir()
    keep(tmp_path / "logs")
    return read_kept(tmp_path)


def again(kept, folder, *names, weights=None, **settings):
    file = folder / "mine.py"
    file.write_text(REWARDS)
    config = RewardKeys(
        reward_funcs=[f"mine.{name}" for name in names],
        reward_code=[str(file)],
        reward_weights=weights,
        **settings,
    )
    with rewards_by(config, [], lambda _: lambda _: []) as ask:
        return rescored(kept, config.reward_names, config.weights, ask)


def test_prompts_are_listed_by_how_much_their_reward_has_changed(kept):
    assert [(one.prompt_row, one.rounds, one.means) for one in changes(kept)] == [
        (8, (1, 2), (1.0, 1.5)),
        (9, (1, 2), (0.25, 0.5)),
    ]
    assert [(one.prompt_row, one.by) for one in changes(kept, "correct")] == [(8, 0.5), (9, 0.5)]
    assert [one.prompt_row for one in changes(kept, "short")] == [8], (
        "the other has no such reward in the last round"
    )
    with pytest.raises(UserError, match="there are correct, short"):
        changes(kept, "other")
    assert kept.rollouts[0].asked == "user: prompt 7"


def test_edited_rewards_say_what_would_have_changed(kept, tmp_path):
    found = again(kept, tmp_path, "correct", "short", weights=[1.0, 0.5])
    assert [row[0] for row in found.values_nf] == [0, 0, 0, 0, 1, 1, 0, 1]
    assert [row[1] for row in found.values_nf] == [1, 1, None, 1, None, None, 1, None]
    assert found.rewards == [0.5, 0.5, 0, 0.5, 1, 1, 0.5, 1]
    # "bb" was right and is not now; the two of round 1 lose half a point each, "x" gains it.
    assert [(one.text, now) for one, now in found.moved()] == [
        ("bb", 0.5), ("right", 1), ("right", 1), ("x", 0.5),
    ]  # fmt: skip
    assert found.other_best() == 1 and found.other_sign() == 2


def test_rewards_are_asked_behind_as_many_steps_as_then(kept, tmp_path):
    assert again(kept, tmp_path, "behind").rewards == [0] * 4 + [3] * 4


def test_a_reward_that_fails_now_is_told_and_too_many_end_it(kept, tmp_path):
    found = again(kept, tmp_path, "correct", "fails", failed_rewards=0.5)
    assert found.values_nf[6] == [0, None] and found.values_nf[4] == [1, 1]
    assert found.rewards[4:] == [2, 2, None, None], (
        "as in a training, a prompt of which one fails counts nothing"
    )
    assert "ZeroDivisionError" in found.failures[0]
    with pytest.raises(UserError, match=r"rewards of 1 of 2 prompts failed"):
        again(kept, tmp_path, "fails")


def test_nothing_kept_is_said(tmp_path):
    with pytest.raises(UserError, match="has no rollouts: it was not trained on"):
        read_kept(tmp_path)
    (tmp_path / "logs").mkdir()
    keep(tmp_path / "logs", [])
    with pytest.raises(UserError, match=r"has no rollouts: pipeline\.keep_rollouts"):
        read_kept(tmp_path)
