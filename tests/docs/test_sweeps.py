"""The commands of docs/sweeps.md."""

import re
import shlex

import pytest
import yaml
from support.project import make_project
from test_layout import ROOT

from tunemill.pipelines.cli import main

PAGE = (ROOT / "docs" / "sweeps.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
(GRID,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A project with the sweep of the page."""
    made = make_project(tmp_path_factory.mktemp("docs") / "p", quantization=None, max_steps=1, lora_r=None,
                        lora_alpha=None, **yaml.safe_load(GRID))  # fmt: skip
    made.yaml.rename(made.folder / "sweep.yml")
    return made.folder


def called(line, folder, monkeypatch):
    words = shlex.split(line)
    assert words[0] == "tunemill"
    monkeypatch.chdir(folder)
    return main(words[1:])


@pytest.mark.parametrize("line", [line for line in COMMANDS if "check" in line or "plan sweep.yml" in line])
def test_a_command_that_looks(line, folder, monkeypatch, capsys):
    assert called(line, folder, monkeypatch) == 0
    shown = capsys.readouterr().out
    if "--point" not in line:
        assert "lr_0_001_lora_r_8_lora_alpha_16" in shown and "4 points" in shown


@pytest.mark.slow
def test_the_commands_that_run(folder, monkeypatch, capsys):
    lines = [line for line in COMMANDS if line.startswith("tunemill sweep")]
    less = "--pipeline.sweep.learning_rate=[0.001] --pipeline.evaluate=[merged] --pipeline.leakage=false"
    assert len(lines) == 2
    assert called(f"{lines[1]} {less}", folder, monkeypatch) == 0
    shown = capsys.readouterr()
    assert "2 of 2 points finished" in shown.out and "the best by exact_match" in shown.out
    assert shown.err.count("/tokenized_sums: computed") == 1 and shown.err.count("/trained: computed") == 2
    assert called(f"{lines[0]} {less}", folder, monkeypatch) == 0
    assert ": computed" not in capsys.readouterr().err
    (one,) = [line for line in COMMANDS if line.startswith("tunemill run")]
    assert called(f"{one} {less}", folder, monkeypatch) == 0
    assert ": computed" not in capsys.readouterr().err
    html = (folder / "sweep.html").read_text()
    assert html.count("<polyline") == 4 and "http" not in html.replace("http://www.w3.org/2000/svg", "")
    assert "<script" not in html
