"""Columns that reward functions ask for by name, and that no row has, are told before anything is loaded or sampled."""

import ast

import pytest
from support.online import prompt_data, settings_for, words_to_sort
from support.tiny_model import Heard, make_model, workspace

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import SettingError
from tunemill.stages.training.grpo.config import GrpoConfig
from tunemill.stages.training.online.learning_body import learn
from tunemill.stages.training.online.reward_columns import needed

OWN = """
import functools


def right(completions, answers, **kwargs):
    return [1.0] * len(completions)


def known(prompts, completions, completion_ids, answer, trainer_state, log_metric, level=None, *, ground_truth, hint=1):
    return [len(one) / 8 for one in completions]


@functools.cache
def wrapped(completions, nothing):
    return [1.0] * len(completions)


def shown(completions, *others, why, **kwargs):
    return []
"""


def attempt(folder, reward):
    """Train one step by a reward; the folder of a model has nothing but its tokenizer where `right` is asked."""
    base = make_model(folder / "base", hidden_size=16, intermediate_size=24)
    prompts = prompt_data(folder / "prompts", base, words_to_sort()[:12])
    if reward == "right":
        (base / "model.safetensors").unlink()
    (folder / "own.py").write_text(OWN)
    keys = {"reward_funcs": [f"own.{reward}"], "reward_code": [str(folder / "own.py")], "max_steps": 1}
    heard = Heard()
    learn(
        GrpoConfig(**settings_for(folder, **keys)),
        Model(base),
        prompts,
        workspace(folder / "run"),
        heard.report,
    )
    return heard


def test_a_column_that_no_row_has_is_told_with_the_function_s_line(tmp_path):
    with pytest.raises(SettingError) as caught:
        attempt(tmp_path / "right", "right")
    said = str(caught.value)
    assert "own.right" in said and "own.py, line 5) must be given 'answers'" in said
    assert "they have answer, ground_truth. Did you mean answer?" in said
    assert attempt(tmp_path / "known", "known").summary["steps"] == 1


def test_what_a_function_must_be_given():
    tree = ast.parse(OWN)
    asked = {
        name: [one for one, _ in needed(tree, name)]
        for name in ("right", "known", "wrapped", "shown", "other")
    }
    # What is decorated may take something else.
    assert asked == {
        "right": ["answers"],
        "known": ["answer", "ground_truth"],
        "wrapped": [],
        "shown": ["why"],
        "other": [],
    }
