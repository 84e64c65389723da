"""Dagster's runs in PostgreSQL, by the lines of docs/operations.md."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support.examples import ROOT
from support.postgres import postgres
from support.project import make_project

from tunemill.pipelines.assets.instance import dagster_home

PAGE = (ROOT / "docs" / "operations.md").read_text()


@pytest.fixture
def url():
    pytest.importorskip("dagster_postgres", reason='pip install "tunemill[postgres]"')
    # pytest's folders are closed to other users, and the server is not root.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with postgres(Path(folder)) as address:
            yield address


@pytest.mark.slow
def test_a_pipeline_runs_with_its_runs_in_postgresql(url, tmp_path):
    project = make_project(tmp_path / "project")
    (lines,) = re.findall(r"^```yaml\n(storage:\n.*?)^```", PAGE, re.M | re.S)
    home = dagster_home(project.state)
    (home / "dagster.yaml").write_text((home / "dagster.yaml").read_text() + lines)
    command = [
        sys.executable,
        "-m",
        "tunemill.pipelines.cli",
        "run",
        str(project.yaml),
        "--only",
        "training_data",
    ]
    done = subprocess.run(
        [*command, "--state", str(project.state), "--json"],
        env={**os.environ, "TUNEMILL_POSTGRES": url.replace(":", "+psycopg2:", 1)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    states = {node["node"]: node["state"] for node in json.loads(done.stdout)["nodes"]}
    assert states["training_data"] == "computed"
    psycopg2 = pytest.importorskip("psycopg2")
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("select status from runs")
        assert cursor.fetchall() == [("SUCCESS",)]
        cursor.execute("select count(*) from event_logs where dagster_event_type = 'ASSET_MATERIALIZATION'")
        assert cursor.fetchone()[0] >= 6
    assert not [*home.rglob("*.db")], "nothing of it is in SQLite"
