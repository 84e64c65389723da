"""`tunemill run --on ray://HOST`: what is refused, and what is sent."""

import argparse
import subprocess
import sys

import pytest
from support.project import make_project
from support.ray_cluster import ray_cluster

from tunemill.pipelines.commands.on import command_there, refuse_another, refuse_on, what_is_asked
from tunemill.pipelines.config.overrides import override_of
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.resources.ray_jobs import Sent
from tunemill.resources.store import Store
from tunemill.stages.errors import SettingError


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("on") / "p")


def options(on="ray://head", **more):
    given = {
        "state": "/shared",
        "store": None,
        "only": [],
        "refresh": [],
        "json": False,
        "verbose": False,
        "overrides": [],
        "on_gpus": 0,
    }
    return argparse.Namespace(on=on, **{**given, **more})


def refused(project, overrides=(), **more):
    with pytest.raises(SettingError) as caught:
        refuse_on(options(**more), load_pipeline(project.yaml, overrides))
    return str(caught.value)


def test_what_cannot_be_sent_is_refused_in_words(project, tmp_path):
    assert "ssh box tunemill run" in refused(project, on="box")
    assert "give --store, the team's store, or --state" in refused(project, state=None)
    refuse_on(options(state=None, store="s3://team/store"), load_pipeline(project.yaml))
    launcher = "pipeline.launcher={processes: 1, nodes: 2, rendezvous: 'a:1'}"
    assert "machines that you start yourself" in refused(project, [launcher])
    (tmp_path / "rows.jsonl").write_text((project.folder / "data" / "sums.jsonl").read_text())
    assert str(tmp_path / "rows.jsonl") in refused(project, [f"datasets.0.path={tmp_path / 'rows.jsonl'}"])


def test_the_command_there_says_what_was_decided_here(project):
    given = options(only=["trained"], overrides=[override_of("--seed 7"), override_of("max_steps=2")])
    pipeline = load_pipeline(project.yaml, ["pipeline.launcher.processes=4"])
    words = command_there(given, pipeline).split()
    assert words[:6] == ["python", "-P", "-m", "tunemill.pipelines.cli", "run", "pipeline.yml"]
    assert words[6:10] == ["--state", "/shared", "--store", "off"]
    assert words[10:] == ["--only", "trained", "--seed=7", "--max_steps=2", "--pipeline.launcher.processes=4"]


def test_a_run_that_is_at_work_is_followed_only_by_the_command_that_sent_it(tmp_path):
    project = make_project(tmp_path / "p", tmp_path / "state")
    store = Store(tmp_path / "state")

    def asks(*overrides, **more):
        given = options(**more, overrides=[override_of(text) for text in overrides])
        return what_is_asked(given, load_pipeline(project.yaml, overrides), store)

    sent = Sent("head:8265", "raysubmit_1", asks())
    refuse_another(sent, asks())
    rows = project.folder / "data" / "sums.jsonl"
    others = [asks("max_steps=3"), asks(only=["trained"]), asks(store="s3://team/other"), asks(on_gpus=1)]
    rows.write_text(rows.read_text() + rows.read_text().splitlines()[0] + "\n")
    others.append(asks())
    project.edit(seed=5)
    others.append(asks())
    for other in others:
        with pytest.raises(SettingError, match="raysubmit_1 is still at work"):
            refuse_another(sent, other)
    # What an older version has noted.
    with pytest.raises(SettingError):
        refuse_another(Sent("head:8265", "raysubmit_1"), asks())


@pytest.mark.slow
def test_a_run_that_is_sent_has_the_keys_that_were_planned_here(tmp_path):
    project = make_project(tmp_path / "p", tmp_path / "state")
    planned = project.plan()["tokenizer"].key
    with ray_cluster() as cluster:
        command = [
            sys.executable,
            "-m",
            "tunemill.pipelines.cli",
            "run",
            str(project.yaml),
            "--only",
            "tokenizer",
        ]
        command += ["--state", str(project.state), "--on", f"ray://{cluster.jobs}"]
        done = subprocess.run(
            command, cwd=tmp_path, env=cluster.environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr + done.stdout
    assert f"on {cluster.jobs}: succeeded" in done.stdout and not list(tmp_path.glob(".tunemill/sent/*"))
    found = project.plan()["tokenizer"]
    assert found.state == "cached" and found.key == planned
