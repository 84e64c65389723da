"""A team's store that does not answer: looks go on with what this machine knows, and a run ends in one sentence."""

import json
import time

import pytest
from support.project import make_project

from tunemill.pipelines.cli import main


@pytest.fixture
def gone(monkeypatch):
    """A store where nobody listens."""
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "very-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "TUNEMILL_STORE": "s3://team/store",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("gone")
def test_looks_go_on_and_a_run_ends_in_one_sentence(tmp_path, capsys):
    project = make_project(tmp_path / "project", test_datasets=None)
    state = ["--state", str(tmp_path / "state")]
    for command in (["plan", str(project.yaml), *state, "--json"], ["status", *state]):
        began = time.monotonic()
        assert main(command) == 0
        told = capsys.readouterr()
        assert time.monotonic() - began < 30
        if command[0] == "plan":
            assert {item["state"] for item in json.loads(told.out)["nodes"]} == {"run"}
            assert told.err.count("note: s3://team/store: cannot be reached") == 1
            assert "what this machine knows of it is shown" in told.err and "very-secret" not in told.err
    assert main(["run", str(project.yaml), "--only", "training_data", *state]) == 1
    said = capsys.readouterr().err
    assert said.count("cannot be reached") == 1 and "--store off" in said and "Traceback" not in said
    assert not (tmp_path / "state" / "artifacts").exists()
