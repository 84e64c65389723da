"""`tunemill rollouts`: completions that a training has kept, as a table and for a program."""

import json

import pytest
from support.kept_rollouts import keep
from support.project import make_project

from tunemill.pipelines.cli import main
from tunemill.resources.canonical import hash_document
from tunemill.resources.folders import remove_tree
from tunemill.resources.refs import Ref
from tunemill.resources.store import KEY_PARTS


def trained(project, *, kept=True):
    """Give the pipeline's node an artifact that has kept its rollouts, or none."""
    document = {part: {} for part in KEY_PARTS} | {"stage": "sft", "version": str(kept)}
    facts = {"pipeline": "pipeline", "node": "trained", "inputs": {}, "metrics": {}}
    key = hash_document(document)
    with project.store.building("sft", key, print, (), "pipeline/trained") as building:
        if kept:
            keep(building.logs)
        ready = project.store.prepare(
            building,
            document,
            {**facts, "started": "2026-01-02T03:04:05+00:00", "seconds": 1.0},
            lambda _: {},
        )
        published = project.store.publish(building, ready)
        project.store.refs.write("pipeline", "trained", Ref("sft", key, published.digest))
        return published


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    made = make_project(tmp_path_factory.mktemp("rollouts") / "project")
    trained(made)
    return made


@pytest.fixture
def ask(project, capsys, monkeypatch):
    monkeypatch.chdir(project.folder)

    def call(*arguments, code=0, command="rollouts"):
        capsys.readouterr()
        try:
            done = main([command, "pipeline.yml", "--state", str(project.state), *arguments])
        except SystemExit as left:
            done = left.code
        assert done == code
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return said.out or said.err

    return call


def test_worst_best_and_filtered(ask):
    lines = ask().splitlines()
    assert lines[0].split() == ["round", "worth", "correct", "short", "ended", "prompt", "completion"]
    assert lines[1].split() == ["1", "0.000", "0.000", "-", "stop", "user:", "prompt", "8", "ccc"]
    assert len(lines) == 9
    (best,) = json.loads(ask("--show", "best", "-n", "1", "--round", "2", "--json"))
    assert (
        best["text"] == "right"
        and best["rewards"] == {"correct": 1.0, "short": 1.0}
        and best["reward"] == 1.5
    )
    assert best["policy"] == "policy1" and best["columns"] == {"answer": "right"}
    found = json.loads(ask("--reward", "correct", "--below", "0.5", "--json"))
    assert [one["text"] for one in found] == ["a", "ccc", "d", "x"]
    assert len(json.loads(ask("--above", "1.2", "--json"))) == 3


def test_prompts_that_changed_most(ask):
    lines = ask("--show", "changed").splitlines()
    assert lines[1].split() == ["user:", "prompt", "7", "1", "1.000", "2", "1.500"]


def test_what_is_not_there_is_said(ask, project):
    assert "there are correct, short" in ask("--reward", "other", code=1)
    assert "pipeline/merged: nothing has been computed yet" in ask("--node", "merged", code=1)
    assert "pipeline/trained: has no rewards of its own" in ask(command="rescore", code=1)
    for count in ("-1", "x"):
        assert "no number of rows; give 0 or more" in ask("-n", count, code=2)
    assert "no number of a round; give 1 or more" in ask("--round", "0", code=2)
    trained(project, kept=False)
    assert "has no rollouts" in ask(code=1)


def test_what_only_the_team_has_is_brought(tmp_path, ask):
    """And what `verify` has set aside is not read, but said to be gone."""
    other = make_project(tmp_path / "other")
    published = trained(other)
    (tmp_path / "team").mkdir()
    team = (tmp_path / "team").as_uri()
    other.store.before(team).share(published, print)
    options = ("--state", str(other.state), "--store", team, "--json")
    before = ask(*options)
    remove_tree(published.folder)
    assert json.loads(ask(*options)) == json.loads(before) and published.folder.is_dir()
    other.store.set_aside("sft", published.key)
    said = ask("--state", str(other.state), "--store", "off", code=1)
    assert "pipeline/trained: it is gone from the store" in said and "run its pipeline again" in said
