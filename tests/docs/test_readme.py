"""What README and docs say is what happens."""

import json
import re
import shlex
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import get_args

import pytest
from support.configs import provide
from support.examples import copy_examples
from support.preference_rows import prepare, texts

from tunemill.pipelines import cli
from tunemill.pipelines.assets.run import run_pipeline
from tunemill.pipelines.config.key_table import key_table
from tunemill.pipelines.config.problems import NOTES, Kind
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.resources.launcher import in_this_process
from tunemill.resources.store import Store

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text()
DATA_PAGE = (ROOT / "docs" / "data.md").read_text()
DIFFERENCES = (ROOT / "docs" / "differences.md").read_text()
LOG = (ROOT / "docs" / "log.md").read_text()
KERNEL_PAGE = (ROOT / "docs" / "kernels.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands():
    """Every `tunemill` command of the README and of docs/data.md, without its comment."""
    lines = [
        line.split("#")[0]
        for block in re.findall(r"^```sh\n(.*?)^```", README + DATA_PAGE, re.M | re.S)
        for line in block.splitlines()
    ]
    return [shlex.split(line)[1:] for line in lines if line.startswith(".venv/bin/tunemill")]


def test_the_make_targets_that_the_readme_names_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:`|^ *)make ([a-z-]+)", "\n".join(page.read_text() for page in PAGES), re.M))
    assert named <= targets and {"quickstart", "test", "test-all", "lint", "bench"} <= targets


def test_links_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), f"{page}: {link}"


def test_the_page_of_keys_is_current():
    assert (ROOT / "docs" / "keys.md").read_text() == key_table(), (
        "run: tunemill schema --markdown > docs/keys.md"
    )


LONG = ["run", "pipeline.yml"]
# What trains, or estimates, in child processes.
IN_CHILDREN = (LONG, ["plan", "examples/quickstart/pipeline.yml", "--memory"])


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(arguments, id=" ".join(arguments), marks=[pytest.mark.slow] * (arguments in IN_CHILDREN))
        for arguments in commands()
    ],
)
def test_every_command_works(arguments, finished_quickstart, monkeypatch):
    folder = finished_quickstart
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TUNEMILL_HOME", str(folder / "state"))
    # A command by itself finds what the one before it would have written.
    if arguments[-1] == LONG[-1] and not (folder / LONG[-1]).exists():
        assert cli.main(next(words for words in commands() if words[0] == "init")) == 0
    if arguments[0] == "unpin":
        assert cli.main(["pin", *arguments[1:]]) == 0
    assert cli.main(arguments) == 0


@pytest.fixture(scope="module")
def finished_quickstart(tmp_path_factory):
    """The quickstart's files, with a run of a few steps in the store: enough for the commands to answer."""
    folder = tmp_path_factory.mktemp("readme")
    path = copy_examples(folder) / "quickstart" / "pipeline.yml"
    text = path.read_text()
    text = re.sub(r"^(num_epochs|max_steps):.*$", "max_steps: 2", text, flags=re.M)
    path.write_text(re.sub(r"^(  name: quickstart)$", r"\1\n  evaluation: {max_rows: 2}", text, flags=re.M))
    # In this process: in children each of the stages would import torch anew.
    nodes = run_pipeline(load_pipeline(path), Store(folder / "state"), launch=in_this_process)
    assert len(nodes) > 10 and {node.state for node in nodes} == {"computed"}
    return folder


def test_the_python_of_the_readme_builds_definitions(tmp_path):
    (block,) = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)
    (tmp_path / "pipelines").mkdir()
    code = block.replace("assets=[...]", "assets=[]")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_the_yaml_of_the_readme_is_valid(tmp_path):
    (block,) = re.findall(r"^```yaml\n(.*?)^```", README, re.M | re.S)
    text = (ROOT / "examples" / "quickstart" / "pipeline.yml").read_text()
    without = re.sub(r"^pipeline:\n(?:[ ].*\n)*", "", text, flags=re.M)
    (tmp_path / "x.yml").write_text(f"{without}\n{block}")
    assert cli.main(["check", str(provide(tmp_path / "x.yml"))]) == 0


DATA_BASE = """
base_model: model
chat_template: chatml
learning_rate: 0.001
"""


@pytest.mark.parametrize("number", range(6))
def test_the_yaml_of_the_page_on_data_is_valid(tmp_path, number):
    blocks = re.findall(r"^```yaml\n(.*?)^```", DATA_PAGE, re.M | re.S)
    assert len(blocks) == 6
    dataset = "" if "dataset" in blocks[number] else "datasets: [{path: rows.jsonl, type: chat_template}]"
    (tmp_path / "x.yml").write_text(f"{DATA_BASE}\n{dataset}\n{blocks[number]}")
    assert cli.main(["check", str(provide(tmp_path / "x.yml"))]) == 0


def test_the_pair_of_the_page_on_data_is_one(tmp_path):
    (block,) = re.findall(r"^```json\n(.*?)^```", DATA_PAGE, re.M | re.S)
    prepared, _ = prepare(tmp_path, [json.loads(block)], rl="orpo", type="chat_template.default")
    question = "<|im_start|>user\n1 + 1<|im_end|>\n<|im_start|>assistant\n"
    assert texts(prepared) == [(question, "2<|im_end|>", "3<|im_end|>")]


@pytest.mark.parametrize("number", range(4))
def test_the_yaml_of_the_page_on_kernels_is_valid(tmp_path, number):
    blocks = re.findall(r"^```yaml\n(.*?)^```", KERNEL_PAGE, re.M | re.S)
    assert len(blocks) == 4
    dataset = "datasets: [{path: rows.jsonl, type: chat_template}]"
    (tmp_path / "x.yml").write_text(f"{DATA_BASE}\n{dataset}\n{blocks[number]}")
    assert cli.main(["check", str(provide(tmp_path / "x.yml"))]) == 0


def test_the_python_of_the_page_on_kernels_runs():
    (block,) = re.findall(r"^```python\n(.*?)^```", KERNEL_PAGE, re.M | re.S)
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_function_of_the_page_on_data_makes_rows(fresh_project):
    project = fresh_project
    (block,) = re.findall(r"^```python\n(.*?)^```", DATA_PAGE, re.M | re.S)
    (project.folder / "shaping.py").write_text(block)
    rows = [{"question": f" {number}? ", "answer": str(number)} for number in range(3)]
    (project.folder / "data" / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry = {"path": "data/questions.jsonl", "type": "shaping.as_conversation"}
    project.edit(datasets=[entry], test_datasets=None)
    command = ["preprocess", str(project.yaml), "--state", str(project.state), "--debug", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "tunemill.pipelines.cli", *command], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)["examples"]
    text = "".join(token for piece in shown[2]["pieces"] for token in piece["tokens"])
    assert "<|im_start|>user\n2?<|im_end|>" in text and text.count("2<|im_end|>") == 1


def test_the_kinds_of_problems_are_those_that_check_gives():
    errors, notes = DIFFERENCES.split("these are notes")
    kinds = [re.findall(r"^  \| `(\w+)` \|", part, re.M) for part in (errors, notes)]
    assert {*kinds[0], *kinds[1]} == {*get_args(Kind)} and {*kinds[1]} == NOTES


def test_the_log_goes_from_new_to_old():
    days = [date.fromisoformat(day) for day in re.findall(r"^## (\S+)$", LOG, re.M)]
    assert days and days == sorted(set(days), reverse=True)
