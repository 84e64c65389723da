"""The commands of docs/sweeps.md."""

import json
import re
import shlex

import pytest
import yaml
from support.examples import copy_examples
from support.project import make_project
from test_layout import ROOT

from tunemill.pipelines.cli import main
from tunemill.pipelines.config.document import read_document
from tunemill.pipelines.config.sweep_points import points_of

PAGE = (ROOT / "docs" / "sweeps.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
GRID, DRAWN = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


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


def test_what_is_drawn_is_eight_points(tmp_path):
    (tmp_path / "x.yml").write_text(f"base_model: model\n{DRAWN}")
    values = [point.values for point in points_of(read_document(tmp_path / "x.yml"), "x")]
    assert len(values) == 8 and all(
        {"learning_rate", "lora_r", "lora_dropout"} == one.keys() for one in values
    )


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
    # The same page of what is there, by itself; and no place where none can be written is found out too late.
    (report,) = re.findall(r"`(tunemill report [^`]*)`", PAGE)
    assert called(f"{report} {less} --html again.html", folder, monkeypatch) == 0
    assert (folder / "again.html").read_text() == html
    (folder / "file").write_text("")
    assert (
        called(f"tunemill sweep sweep.yml {less} --learning_rate=1 --html file/x.html", folder, monkeypatch)
        == 1
    )
    assert html.count("<polyline") == 4 and "http" not in html.replace("http://www.w3.org/2000/svg", "")
    assert "<script" not in html


@pytest.mark.slow
def test_the_example_searches_halves_and_is_reported(tmp_path, capsys):
    yaml_file = str(copy_examples(tmp_path) / "sweep" / "pipeline.yml")
    given = [yaml_file, "--state", str(tmp_path / "state"), "--pipeline.sweep.draws=3", "--max_steps=8"]
    given += ["--pipeline.sweep_settings.rungs=[4]", "--pipeline.evaluation.max_rows=8"]
    assert main(["sweep", *given, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [point["state"] for point in told["points"]].count("stopped") == 1
    assert told["best"]["metric"] == "eval_loss" and told["best"]["second"]
    assert main(["report", *given, "--json"]) == 0
    page = (tmp_path / "state" / "runs" / "sweep" / "standing.html").read_text()
    assert json.loads(capsys.readouterr().out)["report"].endswith("runs/sweep/standing.html")
    assert "2 of 3 points finished" in page and "not finished" in page and page.count("<polyline") >= 5
