"""docs/methods.md and the examples: every command is accepted, every example learns what it is for."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest
from support.examples import ROOT, alarms, copy_examples

from tunemill.pipelines.cli import main
from tunemill.stages.registry import METHODS

PAGE = (ROOT / "docs" / "methods.md").read_text()
COMMANDS = [
    shlex.split(line.split("#")[0])[1:]
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)
    for line in block.splitlines()
]
RUNS = [words for words in COMMANDS if words[0] == "run"]
# What the models of a command score at least on held-out rows, where no other test asks.
SCORES = {
    "dpo": {"accuracy": 0.9, "reward_accuracy": 0.9},
    "dpo --rl=ipo": {"accuracy": 0.9, "reward_accuracy": 0.9},
    "orpo": {"accuracy": 0.9},
    "simpo": {"accuracy": 0.9},
    "reward": {"accuracy": 0.9},
    "distill": {"exact_match": 0.5, "teacher_agreement": 0.9},
    "grpo": {"exact_match": 0.8},
}
EVALUATIONS = {"grpo": "evaluation_dates_of_trained"}
# What the test of the method's own folder shows too: by its example, or by a pipeline that learns.
ELSEWHERE = {"dpo --rl=ipo", "orpo", "simpo", "reward", "kto", "process_reward", "grpo"}


def name_of(words):
    """A command by its example, and its options if it has any: `dpo --rl=ipo`."""
    return " ".join([words[1].split("/")[1], *words[2:]])


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """A folder with the examples."""
    folder = tmp_path_factory.mktemp("examples")
    copy_examples(folder)
    return folder


def test_the_table_has_every_method():
    (table,) = re.findall(r"^\| method \|.*?\n\n", PAGE, re.M | re.S)
    named = set(re.findall(r"^\| `(\w+)`", table, re.M))
    assert named == METHODS.keys() | {"completion", "pretraining_dataset"}


def test_check_and_plan_accept_every_example(examples, tmp_path, capsys):
    folder = examples
    assert main(["check", str(folder / "examples")]) == 0
    assert "without a problem" in capsys.readouterr().out
    for yaml in sorted(folder.glob("examples/*/*.yml")):
        assert main(["plan", str(yaml), "--state", str(tmp_path / "state")]) == 0, yaml


def test_every_command_of_the_page_can_be_planned(examples, tmp_path, monkeypatch):
    folder = examples
    monkeypatch.chdir(folder)
    assert COMMANDS and {name_of(words) for words in RUNS} >= SCORES.keys()
    for words in COMMANDS:
        assert main(["plan", *words[1:], "--state", str(tmp_path / "state")]) == 0, words


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, id=name, marks=[pytest.mark.exhaustive] * (name in ELSEWHERE))
        for words, name in zip(RUNS, map(name_of, RUNS), strict=True)
    ],
)
def test_every_example_learns_what_it_is_for(quickstart_folder, words):
    command = [sys.executable, "-m", "tunemill.pipelines.cli", *words, "--json"]
    environment = {**os.environ, "TUNEMILL_HOME": str(quickstart_folder / "state")}
    done = subprocess.run(command, cwd=quickstart_folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["checks"] and alarms(told) == [], "what learns as it should raises no alarm"
    nodes = {node["node"]: node for node in told["nodes"]}
    for metric, least in SCORES.get(name_of(words), {}).items():
        assert nodes[EVALUATIONS.get(name_of(words), "evaluation_of_trained")]["metrics"][metric] > least
    if name_of(words) in ("dpo", "orpo", "simpo"):
        assert nodes["evaluation_of_base"]["metrics"]["accuracy"] < 0.6


def test_the_dates_of_grpo_are_what_the_script_makes_and_no_held_out_date_is_asked(tmp_path):
    copy = copy_examples(tmp_path) / "grpo"
    subprocess.run([sys.executable, str(copy / "make_data.py")], check=True)
    shipped = ROOT / "examples" / "grpo" / "data"
    rows = {}
    for name in ("prompts", "held_out"):
        text = (shipped / f"{name}.jsonl").read_text()
        assert (copy / "data" / f"{name}.jsonl").read_text() == text
        rows[name] = [json.loads(line) for line in text.splitlines()]
    held_out = {row["messages"][1]["content"] for row in rows["held_out"]}
    assert len(held_out) == 100 and not held_out & {row["answer"] for row in rows["prompts"]}


def test_the_pairs_are_what_the_script_makes_and_no_held_out_date_is_trained_on(tmp_path):
    copy = copy_examples(tmp_path) / "preferences"
    subprocess.run([sys.executable, str(copy / "make_pairs.py")], check=True)
    for kind in ("order", "form"):
        dates = {}
        for part in ("pairs", "heldout"):
            name = f"{kind}_{part}.jsonl"
            shipped = ROOT / "examples" / "preferences" / "data" / name
            assert (copy / "data" / name).read_bytes() == shipped.read_bytes()
            dates[part] = {str(json.loads(line)["chosen"]) for line in shipped.read_text().splitlines()}
        assert dates["pairs"] and not dates["pairs"] & dates["heldout"]
