"""docs/using.md: its commands do what it says."""

import re
import shlex

import pytest
from support.examples import ROOT, copy_examples

from tunemill.pipelines.cli import COMMANDS, VERBS, main, make_parser
from tunemill.pipelines.commands.arguments import parse
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.verb_places import nodes_of_verb

PAGE = (ROOT / "docs" / "using.md").read_text()
COMMAND_LINES = [
    shlex.split(re.sub(r" +# .*", "", line))[1:]
    for line in PAGE.splitlines()
    if line.startswith(".venv/bin/tunemill ")
]
NEED_NOTHING = ("docs", "config-schema", "fetch")


@pytest.mark.parametrize(
    "arguments", [line for line in COMMAND_LINES if line[0] in NEED_NOTHING], ids=" ".join
)
def test_what_needs_no_model_works(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 0
    assert capsys.readouterr().out


def test_the_verbs_mean_nodes_of_the_quickstart(tmp_path):
    pipeline = load_pipeline(copy_examples(tmp_path) / "quickstart" / "pipeline.yml")
    used = [line[0] for line in COMMAND_LINES if line[0] in VERBS]
    assert used and all(nodes_of_verb(verb, pipeline) for verb in used)
    assert all(line[0] in COMMANDS for line in COMMAND_LINES)


def test_its_options_are_there():
    for line in COMMAND_LINES:
        assert not parse(make_parser([line[0]]), line).overrides


def test_every_verb_is_on_it():
    assert all(f"| `{verb}` |" in PAGE for verb in VERBS)
