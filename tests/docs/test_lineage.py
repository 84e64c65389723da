"""docs/lineage.md: every command in it is one that the command line takes."""

import re
import shlex

import pytest
from support.examples import ROOT

from tunemill.pipelines.cli import main

PAGE = (ROOT / "docs" / "lineage.md").read_text()
COMMANDS = re.findall(r"^tunemill (.*)$", PAGE, re.M) + re.findall(r"`tunemill (.*?)`", PAGE)


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_are_taken(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*shlex.split(command), "--state", str(tmp_path / "state")]) == 1
    said = capsys.readouterr()
    # There is nothing in the store: it was looked for.
    assert "no model in the store" in said.out or "nothing has been computed" in said.err


def test_there_are_commands():
    assert len(COMMANDS) == 5
