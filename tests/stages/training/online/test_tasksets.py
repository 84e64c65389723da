"""Tasksets of verifiers as rewards: what they say is what verifiers says, and what it would leave out is refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.online import answer_to, asking, trained, warm_model, words_to_sort
from support.own_environment import packages_with_verifiers
from support.project import make_project
from support.tasksets import by_library, letter_tasks, paths
from support.tiny_model import Heard

from tunemill.stages.errors import SettingError
from tunemill.stages.models.words_body import load_words
from tunemill.stages.training.grpo.config import GrpoConfig
from tunemill.stages.training.online.journal import Journal
from tunemill.stages.training.online.reward_asking import Asked
from tunemill.stages.training.online.reward_keys import RewardKeys
from tunemill.stages.training.online.rewards_body import open_rewards
from tunemill.stages.training.online.tasksets import INSTALL, module_of


@pytest.fixture(scope="module")
def packages():
    return packages_with_verifiers()


@pytest.fixture
def installed(packages, monkeypatch, tmp_path):
    """Verifiers for the processes that are started here, and an installed taskset, `letter_tasks`."""
    there = letter_tasks(tmp_path / "installed").parent
    monkeypatch.setenv("PYTHONPATH", paths(there, packages))
    monkeypatch.syspath_prepend(packages)
    monkeypatch.syspath_prepend(there)
    return there


@pytest.fixture
def code(tmp_path):
    return [str(letter_tasks(tmp_path / "own"))]


def asked(prompts, completions, **columns):
    """Groups of two."""
    return Asked(prompts, completions, [[1]] * len(prompts), columns, group=2, step=1, round=0)


def test_names_are_looked_at_and_verifiers_must_be_there(code):
    def faults(*names, files=None):
        config = GrpoConfig(micro_batch_size=8, learning_rate=1e-3, reward_funcs=names, reward_code=files)
        return [one.reason for one in config.faults() if one.key == "reward_funcs"], config

    (reason,), config = faults("verifiers:letter-tasks")
    assert reason == f"verifiers:letter-tasks: needs verifiers, which is not installed. {INSTALL}"
    assert config.reward_names == ["letter-tasks"] and config.tasksets == ["letter_tasks"]
    assert "verifiers" in config.used_libraries()
    assert config.semantic()["taskset_versions"] == {"letter_tasks": "not installed"}
    (reason,), config = faults("letter_tasks.Letters", files=code)
    assert reason == f"{code[0]}, line 2: needs verifiers, which is not installed. {INSTALL}"
    assert config.reward_names == ["Letters"] and "verifiers" in config.used_libraries()
    assert "taskset_versions" not in config.semantic()
    assert module_of("verifiers:me/My-Tasks@1.0") == "my_tasks"


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_what_it_says_is_what_verifiers_says(code, tmp_path, packages):
    prompts = ["c a b", "c a b", "b a", "b a"]
    answers = ["a b c", "a b c", "a b", "a b"]
    said = ["a b c", "c", "b a", "a b"]
    with open_rewards(RewardKeys(reward_funcs=["letter_tasks.Letters"], reward_code=code), []) as rewards:
        of_texts = rewards(asked(prompts, said, answer=answers))
        shown = {"role": "assistant", "content": "this was not said by the model"}
        talks = [[shown, {"role": "user", "content": one}] for one in prompts]
        turns = [
            [
                {"role": "assistant", "content": one, "tool_calls": [{"function": {"name": "look", "arguments": {}}}]},
                {"role": "tool", "name": "look", "content": "again"},
                {"role": "assistant", "content": one + "!"},
            ]
            for one in said
        ]  # fmt: skip
        whole = [json.dumps({"prompt": p, "answer": a}) for p, a in zip(prompts, answers, strict=True)]
        of_turns = rewards(asked(talks, turns, task=whole))
    expected = by_library(
        tmp_path / "library", packages, [(p, a, [s]) for p, a, s in zip(prompts, answers, said, strict=True)]
    )
    assert [row[0] for row in of_texts.values_nf] == expected and len(set(expected)) == 4
    assert expected[0] == pytest.approx(2.0 - 0.05 - 0.005)
    twice = [(p, a, [s, f"{s}!"]) for p, a, s in zip(prompts, answers, said, strict=True)]
    assert [row[0] for row in of_turns.values_nf] == by_library(tmp_path / "library", packages, twice)
    assert of_texts.metrics["Letters/turns"] == 1 and of_turns.metrics["Letters/turns"] == 2
    assert of_texts.metrics["Letters/right"] == pytest.approx(
        sum(x + 0 for x in (1, 0, 1 / 3, 1)) / 4, abs=0.2
    )


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_what_fails_is_no_reward(code):
    keys = RewardKeys(reward_funcs=["letter_tasks.Letters"], reward_code=code, failed_rewards=1.0)
    with open_rewards(keys, []) as rewards:
        raised = rewards(asked(["a"] * 4, ["a", "bad", "a", "b"], answer=["a"] * 4))
        nothing = rewards(asked(["a"] * 2, ["a", "b"], other=["a"] * 2))
        whole = json.dumps({"prompt": "a", "answer": "a"})
        by_column = rewards(asked(["b"] * 2, ["a", "b"], task=[whole] * 2))
    line = 1 + Path(code[0]).read_text().splitlines().index('            raise ValueError("a bad word")')
    (failure,) = raised.failures
    assert failure.rows == (0, 1) and failure.words.endswith(
        f"raised ValueError: a bad word ({code[0]}, line {line})"
    )
    assert [row[0] for row in raised.values_nf][:2] == [None, None] and raised.values_nf[2][0] is not None
    assert "no column of the row is a field of LetterData (answer)" in nothing.failures[0].words
    assert [row[0] for row in nothing.values_nf] == [None, None]
    assert by_column.values_nf[0][0] == pytest.approx(2.0 - 0.01 - 0.001)


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("InSandbox", r"SandboxedTask.passes needs a sandbox \(runtime\)"),
        ("WithTools", "ToolTask has tools, which verifiers serves beside a harness"),
    ],
)
def test_what_cannot_be_scored_alone_is_refused(code, name, words):
    keys = RewardKeys(reward_funcs=[f"letter_tasks.{name}"], reward_code=code)
    with pytest.raises(SettingError, match=words), open_rewards(keys, []) as rewards:
        rewards(asked(["a"] * 2, ["a", "b"], answer=["a"] * 2))


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_tasks_without_rewards_are_not_worth_zero(code):
    keys = RewardKeys(reward_funcs=["letter_tasks.Unjudged"], reward_code=code, failed_rewards=1.0)
    with open_rewards(keys, []) as rewards:
        found = rewards(asked(["a"] * 2, ["a", "b"], answer=["a"] * 2))
    assert "its tasks have no reward" in found.failures[0].words


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_a_training_learns_from_them(code, tmp_path, packages):
    words, heard = words_to_sort(), Heard()
    base = warm_model(tmp_path / "base", words, 60)
    trained(
        tmp_path / "run", base, words[:8], heard.report, max_steps=2, reward_funcs=["letter_tasks.Letters"],
        reward_code=code,
    )  # fmt: skip
    journal = Journal(tmp_path / "run" / "checkpoints" / "journal")
    rollouts = [one for path in journal.files(0) for one in journal.whole(0, int(path.stem[-3:]))]
    said = load_words(base)
    asked_of = []
    for one in rollouts:
        word, text = words[one.prompt_row], said.decode(one.completion.ids, skip_special_tokens=True)
        asked_of.append((asking(word), answer_to(word), [text]))
    expected = by_library(tmp_path / "library", packages, asked_of)
    assert heard.steps("rewards/Letters")[1] == pytest.approx(sum(expected) / len(expected))
    assert len(set(expected)) > 1 and heard.steps("grad_norm")[1] > 0
    assert heard.steps("logged/Letters/turns")[1] == 1


@pytest.mark.slow
def test_its_tasks_are_rows_and_its_version_is_in_the_key(tmp_path, installed):
    project = make_project(tmp_path / "project")
    command = [
        sys.executable,
        "-m",
        "tunemill.stages.training.online.taskset_rows",
        "verifiers:letter-tasks",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 8 and json.loads(rows[0]["task"])["answer"] == "a b c"
    asks = [{"role": "system", "content": "Sort."}, {"role": "user", "content": "c a b"}]
    assert rows[0]["prompt"] == asks
    few = [*command[:-1], "letter_tasks.Few"]
    done_few = subprocess.run(few, capture_output=True, text=True, check=True, cwd=installed)
    assert done_few.stdout.splitlines() == done.stdout.splitlines()[:2], "a subclass has other settings"
    (project.folder / "data" / "tasks.jsonl").write_text(done.stdout)
    project.yaml.write_text(
        "base_model: model\nreinit_weights: true\nrl: grpo\nmax_steps: 1\nbf16: false\noutput_dir: outputs\n"
        "chat_template: tokenizer_default\ndatasets:\n  - path: data/tasks.jsonl\nlearning_rate: 0.00001\n"
        "micro_batch_size: 8\ngradient_accumulation_steps: 1\n"
        "trl: {num_generations: 4, max_completion_length: 4, reward_funcs: ['verifiers:letter-tasks']}\n"
    )
    assert {item.state for item in project.run().values()} == {"computed"}
    assert {item.state for item in project.plan().values()} == {"cached"}
    file = installed / "letter_tasks.py"
    file.write_text(file.read_text().replace("weight=2.0", "weight=3.0"))
    assert {name for name, item in project.plan().items() if item.state != "cached"} == {"trained"}
    for arguments, words in (
        (["verifiers:not-there"], "there is no module not_there"),
        (["letter_tasks.LetterTask"], "is no taskset of verifiers"),
        (["nowhere.Letters"], "No module named 'nowhere'"),
    ):
        failed = subprocess.run([*command[:-1], *arguments], capture_output=True, text=True, check=False)
        assert failed.returncode == 1 and failed.stderr.startswith("error: ") and words in failed.stderr
