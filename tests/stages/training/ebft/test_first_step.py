"""The first step against values that are computed here of what was sampled; what is asked of the frozen model."""

import pytest
import torch
from support.online import answer_to, trained_on_answers, words_to_sort
from support.tiny_model import Heard, make_model
from torch.nn.functional import normalize
from transformers import AutoModelForCausalLM

from tunemill.stages.models.words_body import load_words
from tunemill.stages.training.online.journal import Journal

WORDS = words_to_sort()[:8]
END = 2


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("first") / "base")


def feature(model, ids):
    """[2 D]: of the last token the states behind the first and the last of two layers, each of length 1."""
    states = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
    return torch.cat([normalize(states[layer][0, -1], dim=0) for layer in (1, 2)])


def log_p_of(model, prompt, ids):
    """[T] of the tokens behind a prompt."""
    whole = torch.tensor([[*prompt, *ids]])
    log_p = model(input_ids=whole).logits[0].log_softmax(-1)[len(prompt) - 1 : -1]
    return log_p.gather(-1, torch.tensor(ids)[:, None]).squeeze(-1)


def rewards_by_hand(model, rollouts, answers):
    """[N] of one group."""
    with torch.no_grad():
        made = [
            [*one.prompt_ids, *(token for token in one.completion.ids if token != END)] for one in rollouts
        ]
        features = normalize(torch.stack([feature(model, ids) for ids in made]), dim=-1)
        answer = normalize(feature(model, [*rollouts[0].prompt_ids, *answers[rollouts[0].prompt_row]]), dim=0)
    products = features @ features.T
    among = (products.sum(-1) - 1) / (len(rollouts) - 1)
    return 2 * (features @ answer) - 2 * 0.5 * among


@pytest.mark.parametrize(
    "adapter", [{}, {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_linear": True}]
)
def test_loss_and_rewards_of_the_first_step_are_those_by_hand(base, tmp_path, adapter):
    heard = Heard()
    trained_on_answers(
        tmp_path / "run", base, WORDS, heard.report, max_steps=2, loss_type="grpo", scale_rewards=False,
        feature_layers=[0.5, 1.0], diversity_coef=0.5, ce_coef=0.25, micro_batch_size=2, gradient_accumulation_steps=4,
        **adapter,
    )  # fmt: skip
    journal = Journal(tmp_path / "run" / "checkpoints" / "journal")
    words = load_words(base)
    answers = [words(answer_to(word), add_special_tokens=False)["input_ids"] for word in WORDS]
    model = AutoModelForCausalLM.from_pretrained(base)
    for number in (0, 1):
        rollouts = journal.rollouts(number, 0)
        groups = [rollouts[:4], rollouts[4:]]
        rewards = torch.cat([rewards_by_hand(model, group, answers) for group in groups])
        # The frozen model is the same in the second round, and the trained one is not.
        assert heard.steps("reward")[number + 1] == pytest.approx(float(rewards.mean()), abs=1e-5)
    rollouts = journal.rollouts(0, 0)
    rewards = torch.cat([rewards_by_hand(model, group, answers) for group in (rollouts[:4], rollouts[4:])])
    advantages = (rewards.reshape(2, 4) - rewards.reshape(2, 4).mean(1, keepdim=True)).flatten()
    stored = torch.tensor(journal.scores(0)["values"])
    assert torch.allclose(stored @ torch.tensor([2.0, -1.0]), rewards, atol=1e-5)
    # At the start every ratio is 1: the policy's loss is 0, for advantages of a group add up to nothing.
    asked = [log_p_of(model, one.prompt_ids, answers[one.prompt_row]) for one in rollouts]
    surprise = -torch.cat(asked).mean()
    losses = [
        -advantage * (log_p - log_p.detach()).exp().mean()
        for one, advantage in zip(rollouts, advantages, strict=True)
        for log_p in [log_p_of(model, one.prompt_ids, list(one.completion.ids))]
    ]
    loss = sum(losses) / len(losses) + 0.25 * surprise
    assert heard.steps("loss")[1] == pytest.approx(float(loss.detach()), abs=1e-5)
    assert heard.steps("ce_loss")[1] == pytest.approx(float(surprise.detach()), abs=1e-5)
    if not adapter:
        loss.backward()
        norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
        assert heard.steps("grad_norm")[1] == pytest.approx(float(norm), rel=1e-4)
