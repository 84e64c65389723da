"""Completions that call tools: what they are told is not learned from, and each has an environment of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from support.environments import caller, environment_file, played
from support.tiny_model import Heard
from transformers import AutoModelForCausalLM

from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.models.words_body import load_words
from tunemill.stages.training.online.environment_calls import Begin, Called, Finish, Use
from tunemill.stages.training.online.environment_state import restored
from tunemill.stages.training.online.environments import environments
from tunemill.stages.training.online.journal import Journal

TESTS = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return caller(tmp_path_factory.mktemp("calls") / "base")


@pytest.fixture
def importable(tmp_path, monkeypatch):
    """What environments were kept as needs their module."""
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("counting", None)


def journal_of(folder):
    return Journal(folder / "checkpoints" / "journal")


def whole_round(folder, number=0):
    journal = journal_of(folder)
    return [one for path in journal.files(number) for one in journal.whole(number, int(path.stem[-3:]))]


def log_p_of(model, one):
    """[T] of a completion's tokens, the sequence by itself and without padding."""
    ids = torch.tensor([[*one.prompt_ids, *one.completion.ids]])
    log_p = model(input_ids=ids).logits[0].double().log_softmax(-1)
    start = len(one.prompt_ids)
    return log_p[start - 1 : -1].gather(-1, ids[0, start:, None]).squeeze(-1)


def told_of(words, one):
    """The texts of the tokens that the model did not say, each piece by itself."""
    pieces, last = [], None
    for token, own in zip(one.completion.ids, one.mask, strict=True):
        if not own:
            pieces = [*pieces, []] if last is not False else pieces
            pieces[-1].append(token)
        last = own
    return [words.decode(piece) for piece in pieces]


@pytest.mark.usefixtures("importable")
def test_the_first_step_learns_from_what_the_model_said_alone(base, tmp_path):
    heard = Heard()
    played(
        tmp_path / "run", base, heard.report, max_steps=1, loss_type="grpo", micro_batch_size=2,
        gradient_accumulation_steps=4, save_first_step=True, gradient_checkpointing=True,
    )  # fmt: skip
    rollouts, words = whole_round(tmp_path / "run"), load_words(base)
    assert max(one.episode.calls for one in rollouts) > 1, "several turns"
    model = AutoModelForCausalLM.from_pretrained(base)
    rewards = []
    for one in rollouts:
        messages = one.episode.messages
        told = [said["content"] for said in messages if said["role"] == "tool"]
        wanted = [f"\n<|im_start|>tool\n{text}<|im_end|>\n<|im_start|>assistant\n" for text in told]
        assert told_of(words, one) == wanted
        assert [said["role"] for said in messages] == ["assistant", *["tool", "assistant"] * len(told)]
        log_p = log_p_of(model, one)
        own = torch.tensor(one.mask)
        assert torch.tensor(one.completion.log_p)[own].tolist() == pytest.approx(
            log_p[own].tolist(), abs=1e-5
        )
        assert not torch.tensor(one.completion.log_p)[~own].any()
        # What the environment has kept is what it was told.
        kept = restored(one.episode.state)
        assert kept.total == one.prompt_row % 5 + sum(n for n in kept.told if n in (1, 2))
        assert len(told) <= one.episode.calls
        assert one.episode.prompt[0]["content"] == f"go {one.prompt_row % 5}"
        rewards.append(kept.total / 10 + len(messages) + kept.total % 5)
    groups = torch.tensor(rewards, dtype=torch.float64).reshape(2, 4)
    advantages = ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)).flatten()
    losses = []
    for one, advantage in zip(rollouts, advantages, strict=True):
        log_p = log_p_of(model, one)[torch.tensor(one.mask)]
        losses.append(-advantage * (log_p - log_p.detach()).exp().mean())
    loss = sum(losses) / len(losses)
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    assert heard.steps("loss")[1] == pytest.approx(float(loss.detach()), abs=1e-6)
    assert heard.steps("grad_norm")[1] == pytest.approx(float(norm), rel=1e-4)
    assert heard.steps("reward")[1] == pytest.approx(sum(rewards) / 8)
    assert heard.steps("rewards/Counter")[1] == pytest.approx(
        sum(restored(one.episode.state).total % 5 for one in rollouts) / 8
    )
    assert heard.steps("completion_length")[1] == sum(one.said for one in rollouts) / 8
    assert heard.steps("mismatch")[1] < 1e-5
    assert heard.steps("tools/call_frequency")[1] == sum(one.episode.calls for one in rollouts) / 8
    assert heard.summary["generated_tokens"] == sum(one.said for one in rollouts)


@pytest.mark.slow
def test_a_tool_that_raises_is_an_error_to_the_model_and_is_told(base, tmp_path):
    heard = Heard()
    played(tmp_path / "run", base, heard.report, max_steps=1, micro_batch_size=16, max_completion_length=128)
    rollouts = whole_round(tmp_path / "run")
    told = [said for one in rollouts for said in one.episode.messages if said["role"] == "tool"]
    errors = [said["content"] for said in told if said["content"] == "{'error': '3 is too much'}"]
    failures = [words for one in rollouts for words in one.episode.failures if "3 is too much" in words]
    # What no longer fits is not told.
    assert 0 < len(errors) <= len(failures)
    file = tmp_path / "counting.py"
    line = 1 + file.read_text().splitlines().index('            raise ValueError("3 is too much")')
    expected = f"trl.environment_factory: add raised ValueError: 3 is too much ({file}, line {line})"
    assert failures[0] == expected
    assert heard.steps("tools/failures")[1] == sum(len(one.episode.failures) for one in rollouts) / 32
    (said,) = (one["message"] for one in heard.of("log") if "calls of tools failed" in one["message"])
    assert said.startswith("round 1: ") and f"{expected} ({len(failures)} calls)" in said


@pytest.mark.slow
def test_no_completion_sees_what_another_one_did(base, tmp_path):
    heard = Heard()
    played(
        tmp_path / "run", base, heard.report, max_steps=3, reward_funcs=["counting.alone"],
        reward_num_workers=2, completions_at_once=4,
    )  # fmt: skip
    assert set(heard.steps("rewards/alone").values()) == {0.0}


@pytest.mark.slow
def test_what_hangs_ends_or_cannot_be_reset_counts_nothing(base, tmp_path):
    heard = Heard()
    rows = [{"start": start} for start in (99, 0, 98, 77, 1, 2)]
    started = time.monotonic()
    played(
        tmp_path / "run", base, heard.report, rows, max_steps=1, micro_batch_size=24,
        gradient_accumulation_steps=1, failed_rewards=0.5, reward_timeout=3.0, beta=0.1,
    )  # fmt: skip
    assert time.monotonic() - started < 60
    assert heard.steps("reward_failed")[1] > 0
    by_start = {}
    for one in whole_round(tmp_path / "run"):
        by_start.setdefault(rows[one.prompt_row]["start"], set()).add(one.episode.failure)
    what = "trl.environment_factory: counting.Counter"
    assert f"{what} took more than 3 s (pipeline.reward_timeout) and was ended" in by_start[99]
    assert f"{what} ended its process" in by_start[98]
    (unasked,) = by_start[77]
    assert unasked.startswith(f"{what}.reset raised RuntimeError: nobody is here (")
    assert by_start[0] == by_start[1] == by_start[2] == {None}
    scores = journal_of(tmp_path / "run").scores(0)
    assert {one["words"] for one in scores["failures"]} == {*by_start[99], *by_start[98], unasked} - {None}
    assert any("rewards of 3 of 6 prompts failed" in one["message"] for one in heard.of("log"))
    with pytest.raises(UserError, match="rewards of 3 of 6 prompts failed, and pipeline"):
        played(
            tmp_path / "other", base, heard.report, rows, max_steps=1, micro_batch_size=24,
            gradient_accumulation_steps=1, reward_timeout=3.0,
        )  # fmt: skip


@pytest.mark.slow
def test_tools_alone_and_how_often_they_are_called(tmp_path):
    base, heard, code = caller(tmp_path / "base", steps=100, tool="double"), Heard(), None
    code = environment_file(tmp_path)
    played(
        tmp_path / "run", base, heard.report, max_steps=1, environment_factory=None, environment_code=None,
        tools=["counting.double"], tools_code=[code], reward_funcs=["counting.calls"],
        max_tool_calling_iterations=1,
    )  # fmt: skip
    rollouts = whole_round(tmp_path / "run")
    turns = [len([said for said in one.episode.messages if said["role"] == "tool"]) for one in rollouts]
    assert max(turns) == 1
    told = {said["content"] for one in rollouts for said in one.episode.messages if said["role"] == "tool"}
    assert told & {"2", "4", "6"} and all(one.episode.state is None for one in rollouts)


@pytest.mark.slow
def test_held_out_prompts_are_answered_in_environments_too(base, tmp_path):
    heard, rows = Heard(), [{"start": 10}, {"start": 20}]
    played(
        tmp_path / "run", base, heard.report, held_out=rows, max_steps=1, eval_steps=1, num_generations_eval=2,
        reward_funcs=["counting.reset_to"], save_strategy="no",
    )  # fmt: skip
    assert heard.steps("eval_rewards/reset_to") == {1: 15.0}
    assert 0 <= heard.steps("eval_rewards/Counter")[1] <= 4


BROKEN = """
class Silent:
    def reset(self, **row):
        pass

    def add(self, n):
        return n


class Bare:
    def reset(self, **row):
        pass


def made():
    return object()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Silent", "add: what it says of itself raised DocstringParsingException"),
        ("Bare", "has no method that a completion could call"),
        ("made", "makes object, which has no method reset"),
    ],
)
def test_an_environment_that_does_not_describe_itself_is_refused(tmp_path, name, words):
    code = tmp_path / "broken.py"
    code.write_text(BROKEN)
    called = Called(f"broken.{name}", [], [str(code)], "trl.environment_factory")
    with environments(called, 60) as homes, pytest.raises(SettingError, match=words):
        homes.describe()


def test_what_does_not_load_is_refused_with_its_line(tmp_path):
    code = tmp_path / "broken.py"
    code.write_text("\nraise RuntimeError('not here')\n")
    called = Called("broken.Some", [], [str(code)], "trl.environment_factory")
    with (
        pytest.raises(SettingError, match=r"raised RuntimeError: not here \(.*line 2\)"),
        environments(called, 60),
    ):
        raise AssertionError("it has loaded")


def test_an_environment_is_kept_without_what_cannot_be(tmp_path):
    called = Called("counting.Counter", [], [environment_file(tmp_path)], "trl.environment_factory")
    with environments(called, 60) as homes:
        homes.ask({0: Begin("1", {"start": 4, "answer": "x"})})
        asked = Use(
            [
                {"type": "function", "function": {"name": "add", "arguments": {"n": 2}}},
                {"type": "function", "function": {"name": "reset", "arguments": {}}},
                {"type": "function", "function": {"name": "add", "arguments": ["n"]}},
                {"type": "mcp", "function": {"name": "add"}},
            ]
        )
        told = homes.ask({0: asked})[0].value
        finished = homes.ask({0: Finish()})[0].value
    assert [one.content for one in told] == [
        "6",
        "{'error': 'Tool reset not found.'}",
        "{'error': 'trl.environment_factory: add: arguments must have names'}",
        "{'error': 'Unsupported tool call type: mcp'}",
    ]
    assert [one.failure is None for one in told] == [True, False, False, False]
    assert finished.left_out == ["connection"] and finished.reward == 1.0


LEFT = """
import sys
from tunemill.stages.training.online.environment_calls import Begin, Called, Use
from tunemill.stages.training.online.environments import environments

called = Called("counting.Counter", [], sys.argv[1:], "trl.environment_factory")
with environments(called, 600) as homes:
    homes.ask({place: Begin("1", {"start": 99}) for place in range(2)})
    print(homes.process.pid, *(one.number for one in homes.places.values()), flush=True)
    call = {"type": "function", "function": {"name": "add", "arguments": {"n": 1}}}
    homes.ask({place: Use([call]) for place in range(2)})
"""


def test_nothing_that_hangs_outlives_a_run_that_is_killed(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent)}
    child = subprocess.Popen(
        [sys.executable, "-c", LEFT, environment_file(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert child.stdout is not None
    numbers = [int(one) for one in child.stdout.readline().split()]
    assert len(numbers) == 3
    time.sleep(0.5)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    until = time.monotonic() + 20
    while any(Path(f"/proc/{number}").exists() for number in numbers):
        assert time.monotonic() < until, "they live on"
        time.sleep(0.1)


@pytest.mark.slow
def test_kept_completions_are_scored_again_with_their_environments(base, tmp_path):
    from tunemill.stages.training.grpo.config import GrpoConfig
    from tunemill.stages.training.online.browsed import read_kept, rescored
    from tunemill.stages.training.online.reward_asking import rewards_by

    heard = Heard()
    played(tmp_path / "run", base, heard.report, max_steps=1)
    kept = read_kept(tmp_path / "run")
    code = [environment_file(tmp_path)]
    config = GrpoConfig(
        environment_factory="counting.Counter", environment_code=code, reward_funcs=["counting.total"],
        reward_code=code, micro_batch_size=8, learning_rate=1e-3,
    )  # fmt: skip
    assert kept.names == ("total", "Counter") == tuple(config.reward_names)
    with rewards_by(config, [], lambda _: lambda _: []) as ask:
        again = rescored(kept, config.reward_names, config.weights, ask)
    assert not again.failures and not list(again.moved())
    assert json.dumps([one.as_json(kept.names) for one in kept.rollouts])
