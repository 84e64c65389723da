"""A whole training whose completions a server samples, and one that stops as the server has other weights."""

import itertools
import time

import pytest
from support.online import trained, words_to_sort
from support.policy_server import policy_server
from support.tiny_model import Heard, make_model

from tunemill.stages.errors import UserError
from tunemill.stages.report import Report
from tunemill.stages.training.online.browsed import read_kept
from tunemill.stages.training.online.journal import Journal

pytestmark = pytest.mark.slow
pytest.importorskip("openai")
CHANCE = """
import random

def drawn(completions, **kwargs):
    return [random.random() for _ in completions]
"""
LORA = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_linear": True}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("online") / "base")


def train(folder, base, server, report, **keys):
    # Rewards that always differ: each step moves the model, whatever it answers.
    code = folder.parent / "chance.py"
    code.write_text(CHANCE)
    settings = {
        "use_vllm": True, "vllm_server_base_url": server.url, "max_steps": 3, "temperature": 0.8,
        "reward_funcs": ["chance.drawn"], "reward_code": [str(code)],
    }  # fmt: skip
    return trained(folder, base, words_to_sort()[:8], report, **{**settings, **LORA, **keys})


def test_a_server_samples_of_the_adapter_as_it_is_trained(tmp_path, base):
    heard = Heard()
    with policy_server(base) as server:
        train(tmp_path / "run", base, server, heard.report)
    assert server.calls == [
        "/v1/load_lora_adapter",
        *["/v1/load_lora_adapter", "/v1/unload_lora_adapter"] * 2,
    ]
    assert heard.summary["largest_mismatch"] < 1e-3
    kept = read_kept(tmp_path / "run")
    assert len({one.policy for one in kept.rollouts}) == 3 and len(kept.rollouts) == 24


def test_a_server_that_ignores_the_adapter_stops_the_training_within_a_step(tmp_path, base):
    heard = Heard()
    with (
        policy_server(base, fault="adapter ignored") as server,
        pytest.raises(UserError, match="it ignores the adapter"),
    ):
        train(tmp_path / "run", base, server, heard.report)
    assert server.calls == ["/v1/load_lora_adapter", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"]


class Slow:
    """Answers a round only when the step that learns from the round before was taken, or says that it was in vain."""

    def __init__(self, server, journal):
        self.journal, self.asked, self.in_vain, self.complete = (
            journal,
            itertools.count(),
            [],
            server.complete,
        )
        server.complete = self

    def __call__(self, asked):
        # Of a probe nothing is drawn.
        number = 0 if "prompt_logprobs" in asked else next(self.asked) // 8
        end = time.monotonic() + 60
        while len(self.journal.steps()) < number and number not in self.in_vain:
            time.sleep(0.02)
            if time.monotonic() > end:
                self.in_vain.append(number)
        return self.complete(asked)


def test_a_server_samples_while_steps_are_taken_and_a_checkpoint_waits_for_it(tmp_path, base):
    heard, missing = Heard(), []
    journal = Journal(tmp_path / "run" / "checkpoints" / "journal")

    def on_event(event):
        heard.events.append(event)
        if event["type"] == "checkpoint":
            taken = len(journal.steps())
            # Of weights before this step's is the round that the next step learns from.
            missing.extend(() if journal.has(taken, 0) else (taken,))

    with policy_server(base) as server:
        slow = Slow(server, journal)
        train(
            tmp_path / "run", base, server, Report(on_event), async_prefetch=True, max_steps=4, save_steps=1,
            completions_at_once=8, vllm_server_timeout=60,
        )  # fmt: skip
    assert slow.in_vain == [] and missing == []
    assert heard.steps("staleness") == {1: 0, 2: 1, 3: 1, 4: 1}
    policies = [{one.completion.policy for one in journal.rollouts(number, 0)} for number in range(4)]
    steps = {number: one.policy for number, one in journal.steps().items()}
    assert policies[0] == policies[1] and policies[2:] == [{steps[1]}, {steps[2]}]
