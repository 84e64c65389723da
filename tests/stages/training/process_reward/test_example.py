"""The example of a process reward model: its data are what its script makes, and it learns."""

import json
import subprocess
import sys

import pytest
from support.examples import ROOT, copy_examples

EXAMPLE = ROOT / "examples" / "process_reward"


def test_its_data_are_what_the_script_makes_and_held_out_rows_are_held_out(tmp_path):
    copy = copy_examples(tmp_path) / "process_reward"
    subprocess.run([sys.executable, str(copy / "make_data.py")], check=True)
    rows = {}
    for name in ("sums", "heldout"):
        text = (copy / "data" / f"{name}.jsonl").read_text()
        assert text == (EXAMPLE / "data" / f"{name}.jsonl").read_text()
        rows[name] = set(text.splitlines())
    assert not rows["sums"] & rows["heldout"]
    for row in map(json.loads, rows["heldout"]):
        for step, label in zip(row["completions"], row["labels"], strict=True):
            terms, said = step.split("=")
            assert (sum(map(int, terms.split("+"))) == int(said)) == label


@pytest.mark.slow
def test_it_learns_which_steps_are_right(tmp_path):
    yaml = copy_examples(tmp_path) / "process_reward" / "pipeline.yml"
    command = [sys.executable, "-m", "tunemill.pipelines.cli", "run", str(yaml), "--json"]
    done = subprocess.run([*command, "--state", str(tmp_path / "state")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    nodes = {node["node"]: node for node in json.loads(done.stdout)["nodes"]}
    metrics = nodes["evaluation_of_trained"]["metrics"]
    assert metrics["step_accuracy"] > 0.9 and metrics["first_wrong_f1"] > 0.9
