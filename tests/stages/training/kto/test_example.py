"""`examples/kto`: its data are what the script makes, held-out dates are held out, and it learns its habit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.examples import ROOT, copy_examples

EXAMPLE = ROOT / "examples" / "kto"


def rows_of(name):
    return [json.loads(line) for line in (EXAMPLE / "data" / name).read_text().splitlines()]


def run(yaml, state, *more):
    command = [
        sys.executable,
        "-m",
        "tunemill.pipelines.cli",
        "run",
        str(yaml),
        "--state",
        str(state),
        "--json",
    ]
    done = subprocess.run([*command, *more], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {node["node"]: node for node in json.loads(done.stdout)["nodes"]}


def test_its_data_are_what_the_script_makes_and_no_held_out_date_is_trained_on(tmp_path):
    copy = copy_examples(tmp_path) / "kto"
    subprocess.run([sys.executable, str(copy / "make_data.py")], check=True, capture_output=True)
    for name in ("judged.jsonl", "held_out.jsonl"):
        assert (copy / "data" / name).read_bytes() == (EXAMPLE / "data" / name).read_bytes()
    trained, held_out = rows_of("judged.jsonl"), rows_of("held_out.jsonl")
    assert not {row["question"] for row in trained} & {row["question"] for row in held_out}
    assert sum(row["label"] for row in trained) == len(trained) / 2 == 300


@pytest.mark.slow
def test_it_learns_its_habit(quickstart_folder):
    examples, state = quickstart_folder / "examples", quickstart_folder / "state"
    nodes = run(examples / "kto" / "pipeline.yml", state)
    likelier = {}
    for what in ("base", "merged"):
        file = Path(nodes[f"evaluation_of_{what}"]["path"]) / "predictions.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        said = {(row["prompt"], row["label"]): row["completion_log_p"] for row in rows}
        questions = {prompt for prompt, _ in said}
        likelier[what] = sum(said[one, True] > said[one, False] for one in questions) / len(questions)
    assert likelier["base"] < 0.1 and likelier["merged"] > 0.9
    assert nodes["evaluation_of_merged"]["metrics"]["reward_accuracy"] > 0.95
