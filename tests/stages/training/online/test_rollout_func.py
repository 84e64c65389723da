"""`trl.rollout_func`: what it is given, what it gives, and what it may not give."""

import numpy as np
import pytest
from pydantic import ValidationError
from support.environments import environment_file, playing_file
from support.online import trained, words_to_sort
from support.tiny_model import Heard, folder_bytes, make_model

from tunemill.stages.errors import UserError
from tunemill.stages.training.grpo.config import GrpoConfig
from tunemill.stages.training.online.journal import Journal

CODE = """
def places(place, step, completions, **kwargs):
    return [float(one) + each for one, each in zip(place, step)]
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("plays") / "base")


def run(folder, base, name, **keys):
    heard = Heard()
    given = (
        {} if name is None else {"rollout_func": f"playing.{name}", "rollout_code": [playing_file(folder)]}
    )
    settings = {"max_steps": 2, "reward_funcs": ["letters.varied"], **given, **keys}
    data = trained(folder / f"run-{name}", base, words_to_sort()[:8], heard.report, **settings)
    rollouts = Journal(folder / f"run-{name}" / "checkpoints" / "journal").whole(0, 0)
    return data, heard, rollouts


def test_what_samples_otherwise_gives_the_same_training_to_the_bit(base, tmp_path):
    keys = {"vllm_importance_sampling_correction": False}
    alone, first, sampled = run(tmp_path, base, None)
    by_function, second, played = run(tmp_path, base, "same", **keys)
    assert folder_bytes(by_function) == folder_bytes(alone)
    assert [one.completion for one in played] == [one.completion for one in sampled]
    assert first.steps("reward") == second.steps("reward")


def test_other_fields_reach_the_rewards(base, tmp_path):
    code = tmp_path / "fields.py"
    code.write_text(CODE)
    _, heard, rollouts = run(
        tmp_path, base, "same", reward_funcs=["fields.places"], reward_code=[str(code)], completions_at_once=4
    )
    assert [one.episode.fields["place"] for one in rollouts] == [0, 1, 2, 3]
    # Two parts of four completions; the second step begins behind one.
    assert heard.steps("reward") == {1: 1.5, 2: 2.5}


def test_under_gradient_checkpointing_the_model_samples_as_it_is(base, tmp_path):
    """A model in training mode would compute layers again, without their caches: its tokens would be garbage."""
    _, heard, rollouts = run(
        tmp_path, base, "drawn", gradient_checkpointing=True, num_iterations=2, max_steps=2, seed=7
    )
    assert max(heard.steps("mismatch").values()) < 1e-5
    assert len({one.completion.ids for one in rollouts}) > 4


def test_log_probabilities_of_another_model_end_the_run(base, tmp_path):
    with pytest.raises(UserError, match=r"log-probabilities are 5 nats a token from those of the model"):
        run(tmp_path, base, "garbage")


def test_without_log_probabilities_nothing_is_compared_or_corrected(base, tmp_path):
    _, heard, rollouts = run(tmp_path, base, "silent")
    assert set(heard.steps("mismatch").values()) == {0.0}
    assert all(np.isnan(one.completion.log_p).all() for one in rollouts)


def test_what_it_says_the_model_has_not_said_is_not_learned_from(base, tmp_path):
    _, heard, rollouts = run(tmp_path, base, "masked", max_steps=1)
    assert all(one.mask[0] is False and all(one.mask[1:]) for one in rollouts)
    assert heard.steps("completion_length")[1] == sum(len(one.completion.ids) - 1 for one in rollouts) / 8
    assert all(one.completion.log_p[0] == 0 for one in rollouts)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "gave NoneType, and must give a dictionary with prompt_ids, completion_ids, logprobs"),
        ("without", "gave prompt_ids, without completion_ids, logprobs"),
        ("few", "completion_ids has 1 items for 8 prompts"),
        ("texts", "completion 1 of 8: completion_ids is 'a', and must be a list of tokens' numbers"),
        ("tensors", r"completion_ids is tensor\(\[5\]\).* by tolist\(\)"),
        ("empty", "completion 1 of 8: completion_ids has no token"),
        ("long", "completion_ids has 9 tokens, and trl.max_completion_length is 8"),
        ("unequal", r"logprobs has 99 items for \d tokens"),
        ("unmasked", "env_mask is .2., and must be 1 of each token that the model said, else 0"),
        ("objects", "extra is <object object"),
        ("raises", r"raised KeyError: 'who' \(.*playing.py, line \d+\)"),
    ],
)
def test_what_is_wrong_is_refused_in_words(base, tmp_path, name, words):
    with pytest.raises(UserError, match=rf"trl.rollout_func: playing.{name}.*{words}"):
        run(tmp_path, base, name)


def test_who_samples_is_one(tmp_path):
    given = {
        "micro_batch_size": 8,
        "learning_rate": 1e-3,
        "reward_funcs": ["a.b"],
        "reward_code": ["/nowhere/a.py"],
    }
    code = playing_file(tmp_path)
    plays = {"rollout_func": "playing.same", "rollout_code": [code]}
    assert [one.key for one in GrpoConfig(**given, **plays).faults()] == ["reward_funcs"]
    with pytest.raises(ValidationError, match="environment_factory is called by what is sampled here"):
        GrpoConfig(
            **given,
            **plays,
            environment_factory="counting.Counter",
            environment_code=[environment_file(tmp_path)],
        )
    with pytest.raises(ValidationError, match="is given the model that they change"):
        GrpoConfig(**given, **plays, use_vllm=True, async_prefetch=True)
    with pytest.raises(ValidationError, match=r"there is no playing.py beside the YAML"):
        GrpoConfig(**given, rollout_func="playing.same")
