"""It learns: a model that mostly repeats the letters, and sorts them now and then, sorts nearly all words."""

import pytest
import torch
from support.online import STOP, answer_to, greedy, loosely, share, trained, warm_model, words_to_sort
from support.tiny_model import Heard

from tunemill.stages.training.gdpo.config import GdpoConfig
from tunemill.stages.training.grpo.config import GrpoConfig

WIDER = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 4}
STEPS = 120
WORDS = [word for word in words_to_sort(3, "abcdefgh") if len(set(word)) == 3]
# To repeat them is never right.
HELD_OUT = [word for word in WORDS if list(word) != sorted(word)][:80]
ASKED = [word for word in WORDS if word not in HELD_OUT]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model that has seen both habits."""
    torch.set_num_threads(1)
    return warm_model(tmp_path_factory.mktemp("loose") / "base", ASKED, 400, loosely, **WIDER)


def shares(folder):
    """Of the likeliest answers to words that were never asked: how many are sorted, and how many end with a stop."""
    texts = greedy(folder, HELD_OUT)
    letters = [text.removesuffix(STOP) for text in texts]
    stops = [text.endswith(STOP) for text in texts]
    return share(letters, list(map(answer_to, HELD_OUT))), sum(stops) / len(stops)


def learned(folder, base, kind, **keys):
    """The folder of the trained model, and what was heard of its training. Each completion is learned from twice."""
    heard = Heard()
    settings = {
        "max_steps": STEPS,
        "num_generations": 8,
        "micro_batch_size": 96,
        "gradient_accumulation_steps": 1,
        "num_iterations": 2,
        "learning_rate": 6e-4,
        "logging_steps": 10,
    }
    data = trained(folder / "run", base, ASKED, heard.report, kind, **{**settings, **keys})
    assert heard.summary["largest_mismatch"] < 1e-4
    return data, heard.summary


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({}, id="dapo"),
        pytest.param({"loss_type": "dr_grpo"}, id="dr_grpo", marks=pytest.mark.exhaustive),
        pytest.param({"importance_sampling_level": "sequence"}, id="gspo", marks=pytest.mark.exhaustive),
    ],
)
def test_letters_are_sorted_on_words_that_were_never_asked(tmp_path, base, keys):
    data, summary = learned(tmp_path, base, GrpoConfig, **keys)
    assert shares(base)[0] < 0.3
    assert shares(data)[0] > 0.8
    assert summary["reward_at_end"] > summary["reward_at_start"] + 0.2


@pytest.mark.slow
@pytest.mark.exhaustive
def test_two_rewards_are_both_learned(tmp_path, base):
    data, _ = learned(tmp_path, base, GdpoConfig, reward_funcs=["letters.ordered", "letters.stopped"])
    sorted_before, stopped_before = shares(base)
    sorted_after, stopped_after = shares(data)
    assert sorted_before < 0.3 and stopped_before < 0.3
    assert sorted_after > 0.8 and stopped_after > 0.8
