"""Completions that call tools, and a function that samples, with a real vLLM: one server for all of them."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from stages.training.online.test_environments import log_p_of, told_of, whole_round
from support.environments import caller, played
from support.online_ranks import OnlineCasesConfig
from support.own_environment import ROOT, python_with_vllm
from support.ranks_group import Group
from support.tiny_model import Heard
from transformers import AutoModelForCausalLM

from tunemill.stages.models.vllm.control_body import TAKES_ADAPTERS
from tunemill.stages.models.vllm.started import started
from tunemill.stages.models.words_body import load_words
from tunemill.stages.training.online.environment_state import restored
from tunemill.stages.training.online.journal import Journal

pytestmark = pytest.mark.slow
pytest.importorskip("openai")
CODE = '''
def add(n: int) -> str:
    """
    Add a number.

    Args:
        n: how much
    """
    return str(n + 1)


def turns(completions, **kwargs):
    return [float(len(one)) + len(one[-1]["content"]) / 10 for one in completions]


def play(prompts, trainer):
    asked = [
        trainer.processing_class.apply_chat_template(one, add_generation_prompt=True, return_dict=False)
        for one in prompts
    ]
    said = trainer.generate(asked)
    return {
        "prompt_ids": asked,
        "completion_ids": [one["completion_ids"] for one in said],
        "logprobs": [one["logprobs"] for one in said],
        "env_mask": [[0] + [1] * (len(one["completion_ids"]) - 1) for one in said],
        "length": [len(one["completion_ids"]) for one in said],
    }


def varied(completions, length, **kwargs):
    return [float(one % 7) + len(said) for one, said in zip(length, completions)]
'''
NAME = "base"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return caller(tmp_path_factory.mktemp("calls") / "base", hidden_size=64)


@pytest.fixture(scope="module")
def url(tmp_path_factory, base):
    """A server that somebody started as the documents say, and that lives through all trainings."""
    folder = tmp_path_factory.mktemp("server")
    words = [
        str(base),
        "--served-model-name",
        NAME,
        "--dtype",
        "float32",
        "--max-model-len",
        "128",
        "--enable-lora",
    ]
    words += ["--max-lora-rank", "8", "--generation-config", "vllm", "--logprobs-mode", "processed_logprobs"]
    with started(
        [*words, "--enforce-eager"], NAME, python=str(python_with_vllm()), folder=folder, log=folder / "vllm.log",
        seconds=400, environment=TAKES_ADAPTERS,
    ) as server:  # fmt: skip
        yield server.url


@pytest.fixture(autouse=True)
def code(tmp_path, monkeypatch) -> str:
    """What environments were kept as needs their module."""
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "own.py"
    path.write_text(CODE)
    yield str(path)
    sys.modules.pop("counting", None)


def served_by(url: str, base: Path, folder: Path, processes: int) -> Group:
    """Processes that train, ahead of which the server samples."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "caller").symlink_to(base)
    body = "support.online_ranks:train_cases"
    return Group(folder, processes, body, OnlineCasesConfig, cases=["served"], url=url)


def train(folder: Path, base: Path, url: str, **keys: Any) -> Heard:
    """Two steps of an adapter, each of a round that the server samples."""
    heard = Heard()
    played(
        folder, base, heard.report, use_vllm=True, vllm_server_base_url=url, adapter="lora", lora_r=4, lora_alpha=8,
        lora_target_linear=True, learning_rate=1e-2, **{"max_steps": 2, **keys},
    )  # fmt: skip
    return heard


def check_rounds(folder: Path, base: Path, heard: Heard) -> list[Any]:
    """What was said has the server's log-probabilities, which are the policy's, and what was told has none.

    Given are the completions of the first round, which are of the base.
    """
    steps = {
        number: one.policy for number, one in Journal(folder / "checkpoints" / "journal").steps().items()
    }
    first, second = whole_round(folder), whole_round(folder, 1)
    assert len({one.completion.policy for one in first}) == 1
    assert {one.completion.policy for one in second} == {steps[1]} != {first[0].completion.policy}
    assert max(heard.steps("mismatch").values()) < 1e-3, "the server samples of what is trained"
    model = AutoModelForCausalLM.from_pretrained(base)
    for one in first:
        own, told = torch.tensor(one.mask), torch.tensor(one.completion.log_p)
        assert told[own].tolist() == pytest.approx(log_p_of(model, one)[own].tolist(), abs=1e-3)
        assert not told[~own].any()
    with torch.no_grad():
        apart = [
            (torch.tensor(one.completion.log_p) - log_p_of(model, one))[torch.tensor(one.mask)].abs().mean()
            for one in second
        ]
    assert torch.stack(apart).mean() > 0.01, "the second round is of other weights than the base's"
    return first


def test_an_environment_is_told_by_what_the_server_samples(tmp_path, base, url):
    keys = {"loss_type": "grpo", "micro_batch_size": 2, "gradient_accumulation_steps": 4}
    heard = train(tmp_path / "run", base, url, **keys)
    first, words = check_rounds(tmp_path / "run", base, heard), load_words(base)
    assert max(one.episode.calls for one in first) > 1, "several turns"
    for one in first:
        told = [said["content"] for said in one.episode.messages if said["role"] == "tool"]
        assert told_of(words, one) == [
            f"\n<|im_start|>tool\n{text}<|im_end|>\n<|im_start|>assistant\n" for text in told
        ]
        kept = restored(one.episode.state)
        assert kept.total == one.prompt_row % 5 + sum(n for n in kept.told if n in (1, 2))
    model = AutoModelForCausalLM.from_pretrained(base)
    kept = [restored(one.episode.state) for one in first]
    rewards = [
        one.total / 10 + len(done.episode.messages) + one.total % 5
        for one, done in zip(kept, first, strict=True)
    ]
    assert heard.steps("reward")[1] == pytest.approx(sum(rewards) / 8)
    groups = torch.tensor(rewards, dtype=torch.float64).reshape(2, 4)
    advantages = ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)).flatten()
    # After one step alone: B was zero, so A had no gradient and is still what it was.
    train(tmp_path / "one", base, url, max_steps=1, **keys)
    again = [one.completion.ids for one in whole_round(tmp_path / "one")]
    assert again == [one.completion.ids for one in first], "the same seeds draw the same"
    adapted = PeftModel.from_pretrained(model, tmp_path / "one" / "data", is_trainable=True)
    trained = [(name, one) for name, one in adapted.named_parameters() if one.requires_grad]
    for name, one in trained:
        if "lora_B" in name:
            one.data.zero_()
    own = [log_p_of(adapted, one)[torch.tensor(one.mask)] for one in first]
    loss = -sum(a * (p - p.detach()).exp().mean() for a, p in zip(advantages, own, strict=True)) / 8
    loss.backward()
    norm = torch.stack([one.grad.norm() for _, one in trained]).norm()
    assert heard.steps("grad_norm")[1] == pytest.approx(float(norm), rel=1e-2)


def test_tools_alone(tmp_path, base, url, code):
    heard = train(
        tmp_path / "run", base, url, environment_factory=None, environment_code=None, tools=["own.add"],
        tools_code=[code], reward_funcs=["own.turns"], reward_code=[code], max_tool_calling_iterations=1,
    )  # fmt: skip
    first = check_rounds(tmp_path / "run", base, heard)
    told = {said["content"] for one in first for said in one.episode.messages if said["role"] == "tool"}
    assert told & {"2", "3", "4"} and max(one.episode.calls for one in first) >= 1


def test_a_function_samples_by_the_server(tmp_path, base, url, code):
    heard = train(
        tmp_path / "run", base, url, environment_factory=None, environment_code=None, rollout_func="own.play",
        rollout_code=[code], reward_funcs=["own.varied"], reward_code=[code],
    )  # fmt: skip
    first = check_rounds(tmp_path / "run", base, heard)
    assert all(one.mask[0] is False and all(one.mask[1:]) for one in first)
    assert all(one.episode.fields["length"] == len(one.completion.ids) for one in first)


@pytest.mark.exhaustive
def test_two_processes_learn_what_one_learns_of_what_is_sampled_ahead(tmp_path, base, url, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    found = []
    for processes in (1, 2):
        group = served_by(url, base, tmp_path / f"{processes}", processes)
        assert group.error is None
        assert processes == 1 or group.said("served_processes") == processes
        assert group.said("served_largest_mismatch") < 1e-3
        journal = Journal(group.kept("served") / "journal")
        steps = {number: one.policy for number, one in journal.steps().items()}
        rounds = [[one for first in (0, 2) for one in journal.whole(number, first)] for number in range(4)]
        policies = [{one.completion.policy for one in done} for done in rounds]
        assert policies[0] == policies[1] and policies[2:] == [{steps[1]}, {steps[2]}]
        assert max(one.episode.calls for one in rounds[0]) > 1
        found.append(([[one.completion.ids for one in done] for done in rounds], group.losses("served")))
    (sampled, losses), (by_two, losses_of_two) = found
    assert sampled == by_two
    assert losses_of_two == pytest.approx(losses, abs=1e-4)
