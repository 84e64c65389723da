"""`trl.generation_kwargs`: tokens that end completions, and what is refused or asks for nothing."""

import pytest
import torch
from support.online import trained, words_to_sort
from support.tiny_model import Heard, make_model

from tunemill.stages.errors import SettingError
from tunemill.stages.models.words_body import load_words
from tunemill.stages.training.grpo.config import GrpoConfig
from tunemill.stages.training.online.journal import Journal

SETTINGS = {
    "num_generations": 4,
    "micro_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "max_steps": 2,
    "save_strategy": "no",
    "reward_funcs": ["letters.varied"],
}


def completions(folder, base, **asked):
    """All completions of a training."""
    settings = {**SETTINGS, "generation_kwargs": asked}
    trained(folder / "run", base, words_to_sort()[:12], Heard().report, **settings)
    journal = Journal(folder / "run" / "checkpoints" / "journal")
    return [one.completion for number in range(2) for one in journal.rollouts(number, 0)]


def test_tokens_that_are_named_end_completions_beside_the_model_s_own(tmp_path):
    torch.set_num_threads(1)
    base = make_model(tmp_path / "base", hidden_size=16, intermediate_size=24)
    before = completions(tmp_path / "before", base)
    tokens = sorted({token for one in before for token in one.ids[:-1]})
    ends = tokens[: len(tokens) // 2]
    found = completions(tmp_path / "found", base, stop_token_ids=ends)
    assert all(not {*one.ids[:-1]} & {*ends} for one in found)
    stopped = [one for one in found if one.ids[-1] in ends]
    assert stopped and all(one.finish_reason == "stop" for one in stopped)
    # The same draws, as far as the first of these tokens.
    for one, other in zip(before[:8], found[:8], strict=True):
        assert one.ids[: len(other.ids)] == other.ids
    known = len(load_words(base))
    with pytest.raises(
        SettingError, match=f"stop_token_ids: {known}: the base model's tokenizer has {known} tokens"
    ):
        completions(tmp_path / "beyond", base, stop_token_ids=[known])


def test_what_is_as_it_is_anyway_is_idle_and_another_value_is_refused():
    def config(**asked):
        rewards = {
            "reward_funcs": ["a.b"],
            "reward_code": ["/a.py"],
            "learning_rate": 1e-5,
            "temperature": 0.5,
        }
        return GrpoConfig(**{**rewards, "micro_batch_size": 8, "generation_kwargs": asked})

    same = config(temperature=0.5, max_tokens=256, do_sample=True, presence_penalty=0.0, stop=None)
    assert {one.key for one in same.idle()} == {"generation_kwargs"} and not same.stop_token_ids
    assert not list(config(stop_token_ids=7).idle()) and config(stop_token_ids=7).stop_token_ids == {7}
    for asked, said in (
        ({"temperature": 0.7}, "trl.temperature is 0.5. Write trl.temperature: 0.7"),
        ({"max_new_tokens": 5}, "Write trl.max_completion_length: 5"),
        ({"seed": 1}, "a seed of its own"),
        ({"presence_penalty": 0.5}, "learned from wrongly"),
        ({"eos_token_id": True}, "a whole number from 0"),
        ({"stop_token_ids": [None, 2]}, "stop_token_ids: None: a token is a whole number from 0"),
    ):
        with pytest.raises(ValueError, match=said):
            config(**asked)
