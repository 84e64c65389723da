"""Follow docs/adding-a-plugin.md literally, beside the YAML of a small project."""

import re
import shlex
from functools import partial
from pathlib import Path

import pytest
import yaml
from support.project import make_project

from tunemill.pipelines import cli
from tunemill.pipelines.assets.run import run_pipeline
from tunemill.pipelines.commands import watched
from tunemill.resources.launcher import in_this_process
from tunemill.stages.training.plugins import HOOKS

PAGE = (Path(__file__).parents[2] / "docs" / "adding-a-plugin.md").read_text()
BLOCKS = dict(re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.M | re.S))


def test_every_hook_is_on_the_page_with_its_arguments():
    named = re.findall(r"`(\w+)\(", PAGE.partition("## The hooks")[2])
    assert set(HOOKS) <= set(named), set(HOOKS) - set(named)


@pytest.mark.slow
def test_the_page_trains(tmp_path, monkeypatch, capsys):
    project = make_project(tmp_path, adapter=None, quantization=None, test_datasets=None, max_steps=2)
    (tmp_path / "my_plugin.py").write_text(BLOCKS["python"])
    project.edit(**yaml.safe_load(BLOCKS["yaml"]))
    monkeypatch.chdir(tmp_path)
    # In children, each stage would import torch anew.
    monkeypatch.setattr(watched, "run_pipeline", partial(run_pipeline, launch=in_this_process))
    for line in BLOCKS["sh"].splitlines():
        _, *command = shlex.split(line)
        state = [] if command[0] == "check" else ["--state", str(project.state)]
        assert cli.main([*command, *state]) == 0, "".join(capsys.readouterr())
    said = capsys.readouterr().out
    assert "pull 0.1 -> 0.2" in said
