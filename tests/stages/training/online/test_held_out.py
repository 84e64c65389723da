"""Held-out prompts of online training: scored by the same rewards, beside a training that does not notice."""

import pytest
import torch
from support.online import trained, trained_on_answers, words_to_sort
from support.tiny_model import Heard, folder_bytes, make_model

from tunemill.stages.errors import UserError
from tunemill.stages.training.grpo.config import GrpoConfig

SETTINGS = {
    "num_generations": 2,
    "micro_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "max_completion_length": 4,
    "max_steps": 4,
    "save_strategy": "no",
    "reward_funcs": ["letters.varied", "letters.short"],
    "reward_weights": [1.0, 0.5],
}
WORDS = words_to_sort()
ASKED, HELD_OUT = WORDS[:12], WORDS[12:17]
EVERY = {"eval_steps": 1}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    torch.set_num_threads(1)
    return make_model(tmp_path_factory.mktemp("held-out") / "base", hidden_size=16, intermediate_size=24)


def run(folder, base, **keys):
    heard = Heard()
    data = trained(folder / "run", base, ASKED, heard.report, **{"held_out": HELD_OUT, **SETTINGS, **keys})
    return data, heard


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"async_prefetch": True, "adapter": "lora", "lora_r": 2, "lora_alpha": 4, "lora_target_linear": True},
    ],
)
def test_a_training_that_is_evaluated_ends_with_the_same_bytes(tmp_path, base, keys):
    alone, first = run(tmp_path / "alone", base, **keys)
    beside, second = run(tmp_path / "beside", base, **EVERY, **keys)
    assert folder_bytes(beside) == folder_bytes(alone)
    assert first.steps("reward") == second.steps("reward") and not first.steps("eval_reward")
    found = second.steps("eval_reward")
    assert list(found) == [1, 2, 3, 4] and len(set(found.values())) > 1
    assert second.summary["last_eval_reward"] == found[4]
    assert second.summary["highest_eval_reward"] == max(found.values())
    assert "eval_reward" in {one["title"] for one in second.of("plot")}
    # A mean of each reward, which are weighed as they are where they are learned from.
    varied, short = (second.steps(f"eval_rewards/{name}") for name in ("varied", "short"))
    for step, value in found.items():
        assert value == pytest.approx(varied[step] + 0.5 * short[step])
    assert set(second.steps("eval_unjudged").values()) == {0.0}
    assert all(1 <= length <= 4 for length in second.steps("eval_completion_length").values())


def test_what_is_side_by_side_and_how_often_each_is_answered(tmp_path, base):
    _, one = run(tmp_path / "one", base, **EVERY, max_steps=1, eval_batch_size=1)
    _, all_ = run(tmp_path / "all", base, **EVERY, max_steps=1)
    assert one.steps("eval_reward") == pytest.approx(all_.steps("eval_reward"))
    _, more = run(tmp_path / "more", base, **EVERY, max_steps=1, num_generations_eval=16)
    assert more.steps("eval_reward") != one.steps("eval_reward")


REMEMBERING = """
count = 0


def remembers(completions, **kwargs):
    global count
    count += len(completions)
    return [(count * 7 + sum(map(ord, text))) % 11 / 11 for text in completions]


def fails_on(completions, answer, **kwargs):
    if any(one.startswith("a") for one in answer) and len(completions) == 2:
        raise ValueError("an a")
    if any(one.startswith("a") for one in answer):
        raise ValueError("some a")
    return [1.0] * len(completions)
"""


def test_what_a_reward_remembers_of_held_out_prompts_reaches_no_training(tmp_path, base):
    (tmp_path / "own.py").write_text(REMEMBERING)
    own = {
        "reward_funcs": ["own.remembers"],
        "reward_code": [str(tmp_path / "own.py")],
        "reward_weights": None,
    }
    alone, _ = run(tmp_path / "alone", base, **own)
    beside, heard = run(tmp_path / "beside", base, **EVERY, **own)
    assert folder_bytes(beside) == folder_bytes(alone) and heard.steps("eval_reward")


def test_rewards_of_held_out_prompts_that_fail_count_nothing_and_are_told_or_end_the_run(tmp_path, base):
    (tmp_path / "own.py").write_text(REMEMBERING)
    asked = [word for word in WORDS if "a" not in word][:12]
    held_out = ["abc", *[word for word in WORDS if "a" not in word][12:16]]
    own = {
        "reward_funcs": ["own.fails_on"],
        "reward_code": [str(tmp_path / "own.py")],
        "reward_weights": None,
    }

    def attempt(name, **keys):
        heard = Heard()
        settings = {**SETTINGS, **own, **EVERY, "max_steps": 1, **keys}
        trained(tmp_path / name, base, asked, heard.report, held_out=held_out, **settings)
        return heard

    heard = attempt("told", failed_rewards=0.2)
    assert heard.steps("eval_reward") == {1: 1.0} and heard.steps("eval_unjudged") == {1: pytest.approx(0.2)}
    said = [one["message"] for one in heard.of("log") if "held-out" in one["message"]]
    assert any("1 of 5 held-out prompts failed" in one and "an a" in one for one in said)
    with pytest.raises(UserError, match="rewards of 1 of 5 prompts failed"):
        attempt("ended", failed_rewards=0.1)


@pytest.mark.slow
def test_the_best_of_the_evaluations_is_the_result(tmp_path, base):
    last, heard = run(tmp_path / "last", base, **EVERY, learning_rate=0.02)
    found = heard.steps("eval_reward")
    best = max(found, key=found.get)
    assert best != 4, "else it proves nothing"
    kept, told = run(tmp_path / "best", base, **EVERY, learning_rate=0.02, load_best_model_at_end=True)
    until, _ = run(tmp_path / "until", base, learning_rate=0.02, max_steps=best)
    assert told.summary["best_step"] == best and told.summary["best_eval_reward"] == found[best]
    assert folder_bytes(kept) == folder_bytes(until) != folder_bytes(last)
    _, stopped = run(tmp_path / "stopped", base, **EVERY, learning_rate=0.02, early_stopping_patience=1)
    assert stopped.summary["steps"] < 4


@pytest.mark.slow
def test_answers_by_features(tmp_path, base):
    keys = {"num_generations": 2, "micro_batch_size": 4, "gradient_accumulation_steps": 1, "max_steps": 3}

    def featured(name, **more):
        heard = Heard()
        data = trained_on_answers(tmp_path / name, base, ASKED, heard.report, **{**keys, **more})
        return data, heard

    for mode in ({}, {"mode": "strided", "stride": 2, "context_length": 2, "generate_max_len": 2}):
        kind = mode.get("mode", "structured")
        alone, _ = featured(f"{kind}-alone", **mode)
        beside, heard = featured(f"{kind}-beside", held_out=HELD_OUT, **EVERY, **mode)
        assert folder_bytes(alone) == folder_bytes(beside)
        near, among = (heard.steps(f"eval_rewards/{name}") for name in ("alignment", "diversity"))
        for step, reward in heard.steps("eval_reward").items():
            assert reward == pytest.approx(2 * near[step] - 2 * among[step])
        assert list(near) == [1, 2, 3] and len(heard.steps("eval_logged/cfm_loss")) == 3
        assert len(set(near.values())) > 1


def test_how_they_are_scored_is_in_the_key_where_it_decides_and_only_there():
    def config(**keys):
        rewards = {"reward_funcs": ["a.b"], "reward_code": ["/a.py"], "learning_rate": 1e-5}
        return GrpoConfig(**{**rewards, "micro_batch_size": 8, **keys})

    assert config().deciding() == frozenset() and config().unused_inputs() == {"evaluation_data"}
    decides = config(load_best_model_at_end=True, eval_steps=1)
    assert {"num_generations_eval", "eval_steps", "evaluation_data", "eval_batch_size"} <= decides.deciding()
    assert decides.best_metric == "eval_reward" and decides.more_is_better
    assert (
        config(load_best_model_at_end=True, metric_for_best_model="rewards/b").best_metric == "eval_rewards/b"
    )
    with pytest.raises(ValueError, match=r"eval_loss is no figure.*eval_reward, eval_rewards/b"):
        config(load_best_model_at_end=True, metric_for_best_model="eval_loss")
    idle = config(num_generations_eval=2).idle()
    assert {one.key for one in idle} == {"num_generations_eval"}
    assert not list(config(num_generations_eval=2, eval_steps=1).idle())
