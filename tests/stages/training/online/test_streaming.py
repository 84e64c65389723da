"""Rewards that are asked of some prompts at a time: the same rounds, whatever fails and wherever it is killed."""

from pathlib import Path

import pytest
import torch
from support.online import trained, words_to_sort
from support.tiny_model import Heard, folder_bytes, make_model

from tunemill.stages.errors import UserError
from tunemill.stages.training.online.journal import Journal
from tunemill.stages.training.online.rewards import Failure, Scores, together

SETTINGS = {
    "num_generations": 2,
    "micro_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "completions_at_once": 6,
    "max_completion_length": 4,
    "max_steps": 2,
    "save_strategy": "no",
}
CODE = """
import random

def drawn(completions, **kwargs):
    return [random.random() for _ in completions]

def counted(completions, log_metric, **kwargs):
    log_metric("asked", len(completions))
    return [sum(map(ord, text)) % 7 / 7 for text in completions]

def failing(completions, answer, **kwargs):
    if answer[0].startswith("a"):
        raise ValueError("no")
    return [1.0 for _ in completions]
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    torch.set_num_threads(1)
    return make_model(tmp_path_factory.mktemp("streaming") / "base", hidden_size=16, intermediate_size=24)


def run(folder: Path, base: Path, reward: str, **keys):
    folder.mkdir(exist_ok=True)
    code, heard = folder / "chance.py", Heard()
    code.write_text(CODE)
    given = {"reward_funcs": [f"chance.{reward}"], "reward_code": [str(code)]}
    data = trained(folder / "run", base, words_to_sort()[:12], heard.report, **{**SETTINGS, **given, **keys})
    return data, heard, Journal(folder / "run" / "checkpoints" / "journal")


@pytest.mark.slow
def test_each_part_is_asked_once_and_a_round_is_the_same(tmp_path, base):
    whole, first, _ = run(tmp_path / "whole", base, "counted")
    parts, second, journal = run(tmp_path / "parts", base, "counted", streaming_partial_batch=True)
    assert folder_bytes(parts) == folder_bytes(whole)
    assert first.steps("reward") == second.steps("reward")
    assert first.steps("logged/asked") == {1: 8, 2: 8} and second.steps("logged/asked") == {1: 2, 2: 2}
    # Three prompts are sampled together, then the fourth.
    _, third, journal = run(
        tmp_path / "pairs", base, "counted", streaming_partial_batch=True, streaming_min_groups=2,
        async_prefetch=True, max_staleness=1,
    )  # fmt: skip
    assert [journal.scores(0, group) is not None for group in range(4)] == [True, False, True, True]
    assert third.steps("logged/asked") == {1: 3, 2: 3}


def test_what_is_drawn_in_a_reward_is_drawn_anew_for_each_part(tmp_path, base):
    _, _, journal = run(tmp_path, base, "drawn", streaming_partial_batch=True, max_steps=1)
    values = [value for (value,) in journal.scores(0)["values"]]
    assert len(set(values)) == 8


@pytest.mark.slow
def test_how_many_prompts_may_fail_is_a_question_of_the_round(tmp_path, base):
    words = [" ".join(sorted(word)) for word in words_to_sort()[:4]]
    share = sum(word.startswith("a") for word in words) / 4
    assert 0 < share < 1
    _, heard, _ = run(
        tmp_path / "some", base, "failing", streaming_partial_batch=True, max_steps=1, failed_rewards=share
    )
    assert heard.steps("reward_failed") == {1: share}
    with pytest.raises(UserError, match=f"rewards of {int(4 * share)} of 4 prompts failed"):
        run(tmp_path / "none", base, "failing", streaming_partial_batch=True, max_steps=1, failed_rewards=0.0)


def test_parts_are_put_together_by_hand():
    parts = [
        Scores(("f",), [[1.0], [None]], (Failure((1,), "f", "no"),), {"m": 1.0}, {"x": [1, 2]}),
        Scores(("f",), [[2.0], [3.0], [4.0], [5.0]], (Failure((0, 3), "f", "no"),), {"m": 4.0, "n": 2.0}),
    ]
    found = together(parts)
    assert found.values_nf == [[1.0], [None], [2.0], [3.0], [4.0], [5.0]]
    assert [one.rows for one in found.failures] == [(1,), (2, 5)]
    assert found.metrics == {"m": 3.0, "n": 2.0}
    assert found.extra == {"x": [1, 2, None, None, None, None]}
