"""docs/operations.md: its keys are those that there are, its YAML is valid, and its tutorial runs as it stands."""

import os
import re
import subprocess
import sys

import pytest
import yaml
from support.examples import ROOT, copy_examples
from support.project import Project, make_project
from support.ui import serve

from tunemill.pipelines.config.operation_keys import OperationKeys, Schedule, Watch
from tunemill.pipelines.graph.load import load_pipeline

PAGE = (ROOT / "docs" / "operations.md").read_text()
TUTORIAL = PAGE[PAGE.index("## From an Axolotl YAML") : PAGE.index("## Schedules and watchers")]


def test_every_key_is_on_it():
    (rows,) = re.findall(r"^\| key \| meaning \|\n\|---\|---\|\n((?:\|.*\n)+)", PAGE, re.M)
    named = {key for row in rows.splitlines() for key in re.findall(r"`([\w.]+)`", row.split("|")[1])}
    groups = {"schedule": Schedule, "watch": Watch}
    assert named == {
        *(f"{group}.{key}" for group, settings in groups.items() for key in settings.model_fields),
        *(OperationKeys.model_fields.keys() - groups.keys()),
    }


def test_its_yaml_is_valid(tmp_path):
    section = PAGE[PAGE.index("## Schedules and watchers") :]
    (block, *_) = re.findall(r"^```yaml\n(.*?)^```", section, re.M | re.S)
    folder = copy_examples(tmp_path) / "quickstart"
    text = re.sub(r"^pipeline:\n(?:[ ].*\n)*", "", (folder / "pipeline.yml").read_text(), flags=re.M)
    (folder / "x.yml").write_text(f"{text}\n{block}")
    pipeline = load_pipeline(folder / "x.yml")
    assert pipeline.schedule == Schedule(**yaml.safe_load(block)["pipeline"]["schedule"])
    assert pipeline.watch == Watch()


@pytest.mark.slow
def test_its_tutorial_runs(tmp_path):
    copy_examples(tmp_path)
    command = tmp_path / ".venv" / "bin" / "tunemill"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m tunemill.pipelines.cli "$@"\n')
    command.chmod(0o755)
    file = tmp_path / "retrain" / "dates.yml"
    file.parent.mkdir()
    said = []
    for kind, block in re.findall(r"^```(yaml|sh)\n(.*?)^```", TUTORIAL, re.M | re.S):
        if kind == "yaml":
            assert block.splitlines()[0] in ("# retrain/dates.yml", "# added to retrain/dates.yml")
            file.write_text(block if "added" not in block.splitlines()[0] else file.read_text() + block)
        elif block.startswith(".venv/bin/tunemill ui "):
            with serve(Project(file.parent, tmp_path / ".tunemill")) as ui:
                repository = ui.ask(
                    "{repositoriesOrError{... on RepositoryConnection{nodes{schedules{name} sensors{name}}}}}"
                )["repositoriesOrError"]["nodes"][0]
            assert [one["name"] for one in repository["schedules"]] == ["dates_schedule"]
            assert "dates_watch" in {one["name"] for one in repository["sensors"]}
        else:
            done = subprocess.run(
                ["bash", "-ec", block],
                cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True,
            )  # fmt: skip
            assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
            said.append(done.stdout + done.stderr)
    first, published, again, failed = said
    assert re.search(r"^all \d+ nodes cached", first, re.M)
    assert (file.parent / "published" / "tunemill_lineage.json").is_file() and "published" in published
    assert "rows.jsonl" in again and "not published" in failed


@pytest.mark.slow
def test_its_workspace_of_two_code_locations_is_served(tmp_path):
    """Both are loaded by Dagster itself, and one that is broken is told of and leaves the other as it is."""
    section = PAGE[PAGE.index("## Hundreds of pipelines") :]
    (workspace,) = re.findall(r"^```yaml\n(.*?)^```", section, re.M | re.S)
    python = re.findall(r"^```python\n(.*?)^```", section, re.M | re.S)[0]
    (tmp_path / "workspace.yaml").write_text(workspace)
    for team in ("team_a", "team_b"):
        make_project(tmp_path / team, pipeline={"name": f"of_{team}"})
        (tmp_path / f"{team}.py").write_text(python.replace("team_a", team))
    assert (tmp_path / "team_a.py").read_text() == python
    command = next(line for line in section.splitlines() if line.startswith("dagster definitions validate"))
    is_valid, said = validated(tmp_path, command)
    assert is_valid, said
    for team in ("team_a", "team_b"):
        assert f"Validation successful for code location {team}." in said
    (tmp_path / "team_b.py").write_text(python.replace('Path("team_a")', "Path(1)"))
    is_valid, said = validated(tmp_path, command)
    assert not is_valid and "Validation failed for code location team_b" in said
    assert "Validation successful for code location team_a." in said


def validated(folder, command):
    """Whether Dagster takes a workspace, and what it says of it."""
    done = subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    return done.returncode == 0, done.stdout
