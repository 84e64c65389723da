"""The first step against values that are computed here, of what was sampled; and what samples, by itself."""

import numpy as np
import pytest
import torch
from support.online import asking, trained, words_to_sort
from support.tiny_model import Heard, make_model
from transformers import AutoModelForCausalLM

from tunemill.stages.models.words_body import load_words
from tunemill.stages.training.online.engine import SamplingSettings
from tunemill.stages.training.online.journal import Journal
from tunemill.stages.training.online.transformers_engine_body import TransformersEngine

TEMPERATURE = 0.7


def log_p_of(model, one):
    """[T] of a completion's tokens, the sequence by itself and without padding."""
    ids = torch.tensor([[*one.prompt_ids, *one.completion.ids]])
    log_p = (model(input_ids=ids).logits[0].double() / TEMPERATURE).log_softmax(-1)
    start = len(one.prompt_ids)
    return log_p[start - 1 : -1].gather(-1, ids[0, start:, None]).squeeze(-1)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("first") / "base")


def test_loss_and_gradient_of_the_first_step_are_those_by_hand(base, tmp_path):
    heard = Heard()
    trained(
        tmp_path / "run",
        base,
        words_to_sort()[:8],
        heard.report,
        max_steps=1,
        temperature=TEMPERATURE,
        loss_type="grpo",
        micro_batch_size=2,
        gradient_accumulation_steps=4,
        save_first_step=True,
        reward_funcs=["letters.varied", "letters.short"],
        reward_weights=[1.0, 0.25],
        gradient_checkpointing=True,
    )
    journal = Journal(tmp_path / "run" / "checkpoints" / "journal")
    rollouts = journal.rollouts(0, 0)
    scores = np.array(journal.scores(0)["values"])
    assert [one.prompt_row for one in rollouts] == [0, 0, 0, 0, 1, 1, 1, 1]
    rewards = scores @ np.array([1.0, 0.25])
    groups = rewards.reshape(2, 4)
    expected = (
        (groups - groups.mean(1, keepdims=True)) / (groups.std(1, ddof=1, keepdims=True) + 1e-4)
    ).ravel()
    assert (expected != 0).all()
    model = AutoModelForCausalLM.from_pretrained(base)
    # At the start every ratio is 1: a completion's loss is minus its advantage, its gradient that of its mean log p.
    losses = []
    for one, advantage in zip(rollouts, expected, strict=True):
        log_p = log_p_of(model, one)
        assert log_p.tolist() == pytest.approx(one.completion.log_p, abs=1e-5)
        losses.append(-advantage * (log_p - log_p.detach()).exp().mean())
    loss = sum(losses) / len(losses)
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    assert heard.steps("loss")[1] == pytest.approx(float(loss.detach()), abs=1e-6)
    assert heard.steps("grad_norm")[1] == pytest.approx(float(norm), rel=1e-4)
    assert heard.steps("reward")[1] == pytest.approx(rewards.mean())
    assert heard.steps("mismatch")[1] < 1e-5


SILENT = """
def of_some(completions, answer, **kwargs):
    return [float(len(one)) if right != answer[0] else None for one, right in zip(completions, answer)]
"""


def test_a_completion_of_which_no_reward_says_anything_is_told_and_has_no_reward(base, tmp_path):
    heard = Heard()
    code = tmp_path / "silent.py"
    code.write_text(SILENT)
    trained(
        tmp_path / "run", base, words_to_sort()[:8], heard.report, max_steps=1, log_completions=True,
        num_completions_to_print=8, reward_funcs=["silent.of_some"], reward_code=[str(code)],
    )  # fmt: skip
    (table,) = (one for one in heard.of("table") if one["title"] == "Completions")
    rewards = [row[3] for row in table["rows"]]
    assert rewards[:4] == [None] * 4 and None not in rewards[4:]
    assert any("says anything of 4 of 8 completions" in one["message"] for one in heard.of("log"))


def sampled(model, words, seeds, **settings):
    tokenizer = load_words(words)
    prompts = [
        tokenizer(asking(word), add_special_tokens=False)["input_ids"] for word in ("cab", "abcde", "d", "ee")
    ]
    engine = TransformersEngine(model, frozenset({2}))
    engine.sync("policy", 0)
    sampling = SamplingSettings(max_new_tokens=6, **settings)
    together = engine.generate(prompts, seeds, sampling)
    alone = [
        engine.generate([prompt], [seed], sampling)[0] for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    return prompts, together, alone


def test_what_is_drawn_depends_on_the_prompt_and_its_seed_alone(base):
    model = AutoModelForCausalLM.from_pretrained(base)
    # As a training has it: gradient checkpointing would spoil the cache.
    model.train()
    model.gradient_checkpointing_enable()
    settings = {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.001, "repetition_penalty": 1.3}
    prompts, together, alone = sampled(model, base, [1, 2, 3, 4], **settings)
    assert [one.ids for one in together] == [one.ids for one in alone]
    assert model.training and model.generation_config.eos_token_id == 2
    for one, other in zip(together, alone, strict=True):
        assert one.log_p == pytest.approx(other.log_p, abs=1e-5) and one.policy == "policy"
    model.eval()
    for prompt, one in zip(prompts, together, strict=True):
        ids = torch.tensor([[*prompt, *one.ids]])
        log_p = (model(input_ids=ids).logits[0] / 0.8).log_softmax(-1)[len(prompt) - 1 : -1]
        own = log_p.gather(-1, ids[0, len(prompt) :, None]).squeeze(-1)
        assert own.tolist() == pytest.approx(one.log_p, abs=1e-5)
        assert one.finish_reason == ("stop" if one.ids[-1] == 2 else "length")
    _, others, _ = sampled(model, base, [5, 6, 7, 8], **settings)
    assert [one.ids for one in others] != [one.ids for one in together]


def test_one_prompt_with_several_seeds_has_several_answers_and_the_likeliest_alone_has_one(base):
    model = AutoModelForCausalLM.from_pretrained(base)
    engine = TransformersEngine(model, frozenset({2}))
    drawn = engine.generate([[5, 6, 7]] * 8, list(range(8)), SamplingSettings(max_new_tokens=4))
    assert len({one.ids for one in drawn}) == 8
    certain = engine.generate([[5, 6, 7]] * 8, list(range(8)), SamplingSettings(max_new_tokens=4, top_k=1))
    assert len({one.ids for one in certain}) == 1
