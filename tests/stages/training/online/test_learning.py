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


# A rate that falls to nothing, so that how it ends is no matter of the last steps.
SETTLED = {"max_steps": 200, "num_iterations": 1, "learning_rate": 8e-4, "lr_scheduler": "cosine"}
# A round is a step, and three rounds are sampled before it is its turn.
OLDER = {"async_prefetch": True, "prefetch_depth": 3, "max_staleness": 3}


def ends(folder, base, seed):
    """Shares of sorted words: of a training by completions of its own policy, and by those of one three steps older."""
    found = []
    for keys in ({}, OLDER):
        place = folder / f"{seed}-{len(found)}"
        data, summary = learned(place, base, GrpoConfig, **{**SETTLED, "seed": seed, **keys})
        assert summary.get("largest_staleness", 0) == (3 if keys else 0)
        assert bool(summary.get("largest_policy_moved")) == bool(keys), (
            "else they would be of the same policy"
        )
        found.append(shares(data)[0])
    return found


@pytest.mark.slow
def test_completions_of_an_older_policy_teach_it_too(tmp_path, base):
    fresh, older = ends(tmp_path, base, 1)
    # Of 80 words a share of .95 is known to .025.
    assert min(fresh, older) > 0.85 and abs(fresh - older) < 0.07


@pytest.mark.slow
@pytest.mark.exhaustive
def test_over_three_seeds_they_teach_as_much(tmp_path, base):
    fresh, older = zip(*(ends(tmp_path, base, seed) for seed in (1, 2, 3)), strict=True)
    assert abs(sum(fresh) - sum(older)) / 3 <= 0.02


@pytest.mark.slow
@pytest.mark.exhaustive
def test_two_rewards_are_both_learned(tmp_path, base):
    data, _ = learned(tmp_path, base, GdpoConfig, reward_funcs=["letters.ordered", "letters.stopped"])
    sorted_before, stopped_before = shares(base)
    sorted_after, stopped_after = shares(data)
    assert sorted_before < 0.3 and stopped_before < 0.3
    assert sorted_after > 0.8 and stopped_after > 0.8
