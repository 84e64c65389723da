"""docs/evaluating.md: its commands run on evaluations that are there, and its sentences are those that are printed."""

import re
import shlex
import shutil
from pathlib import Path

from support.examples import ROOT, copy_examples

from tunemill.pipelines.cli import main
from tunemill.pipelines.graph.check_files import check_files
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.stages.evaluation.statistics.comparison import compare
from tunemill.stages.evaluation.statistics.verdict import verdict

PAGE = (ROOT / "docs" / "evaluating.md").read_text()
COMMANDS = [
    shlex.split(line)[1:]
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)
    for line in block.splitlines()
    if line.startswith(".venv/bin/tunemill diff ")
]


def test_its_sentences_are_those_that_are_printed():
    close = compare([1] * 178 + [0] * 22, [1] * 170 + [0] * 8 + [1] * 12 + [0] * 10)
    far = compare([0] * 250, [1] * 248 + [0] * 2)
    assert f"```\n{verdict(close)}\n{verdict(far)}\n```" in PAGE


def test_its_first_yaml_is_valid(tmp_path):
    block = re.search(r"^```yaml\n(pipeline:\n.*?)^```", PAGE, re.M | re.S)[1]
    folder = copy_examples(tmp_path) / "quickstart"
    shutil.copy(folder / "data" / "heldout.jsonl", folder / "data" / "dates_test.jsonl")
    (folder / "my_metrics.py").write_text("def days_off(prediction, reference):\n    return 0\n")
    text = re.sub(r"^pipeline:\n(?:[ ].*\n)*", "", (folder / "pipeline.yml").read_text(), flags=re.M)
    (folder / "x.yml").write_text(f"{text}\n{block}")
    problems = [one.message for one in check_files([folder / "x.yml"])[0].problems]
    assert not problems
    nodes = {node.name for node in load_pipeline(folder / "x.yml").nodes}
    assert {"generations_dates_of_base", "evaluation_dates_of_merged"} <= nodes


def test_its_commands_run(project, tmp_path, monkeypatch, capsys):
    """On a project whose pipeline has the name of the quickstart: that one takes minutes."""
    copy_examples(tmp_path)
    project.edit(pipeline={"name": "quickstart"})
    for folder in (project.state / "refs").iterdir():
        folder.rename(folder.with_name("quickstart"))
    monkeypatch.chdir(tmp_path)
    assert len(COMMANDS) == 4
    for words in COMMANDS:
        assert main([*words, "--state", str(project.state)]) == 0, words
        shown = capsys.readouterr().out
        assert "4 rows of both, paired by what they ask" in shown or '"paired_by": "id"' in shown
    assert "evaluation_of_merged" in Path("difference.html").read_text()
