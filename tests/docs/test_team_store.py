"""docs/scale.md, "One store for a team": its YAML is valid, and its commands run as they stand, but for the bucket."""

import re
import shlex
import subprocess
import sys

import pytest
import yaml
from support.project import make_project
from test_layout import ROOT

from tunemill.resources.objects import fault_of_team_url

PAGE = (ROOT / "docs" / "scale.md").read_text()
SECTION = PAGE[PAGE.index("## One store for a team") :].partition("\n## ")[0]


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", SECTION, re.M | re.S)


def test_its_yaml_names_stores_that_can_be_shared():
    (block,) = blocks("yaml")
    assert fault_of_team_url(yaml.safe_load(block)["pipeline"]["store"]) is None
    others = re.findall(r"\w+://[\w/]+", block.partition("#")[2])
    assert len(others) == 3 and all(fault_of_team_url(url) is None for url in others)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["folder", pytest.param("s3", marks=pytest.mark.exhaustive)])
def test_its_commands_run(where, tmp_path, request):
    folder = make_project(tmp_path / "project", test_datasets=None).folder
    (tmp_path / "shared").mkdir()
    url = f"file://{tmp_path / 'shared'}"
    if where == "s3":
        url = request.getfixturevalue("s3").url("docs/team")
    (block,) = blocks("sh")
    said = []
    for line in block.replace("s3://bucket/team", url).splitlines():
        command = [sys.executable, "-m", "tunemill.pipelines.cli", *shlex.split(line)[1:]]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        said.append(done.stdout + done.stderr)
    plan, run, status, ls, verify, prune, room = said
    assert "nodes to run" in plan and "training_data" in status
    assert "published for the team" in run and "not published" not in run
    assert "training_data" in ls and "0 damaged" in verify
    assert "0 places would be deleted" in prune and "0 folders deleted" in room
