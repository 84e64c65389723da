"""Two machines of a team with one pipeline: what one has computed the other takes, and only what it needs."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import yaml
from support.project import make_project
from test_layout import ROOT

from tunemill.pipelines.assets.descriptions import description
from tunemill.pipelines.assets.run import run_pipeline
from tunemill.pipelines.assets.summary import summary
from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.plan import make_plan
from tunemill.pipelines.run import team
from tunemill.pipelines.run.look import look
from tunemill.resources.folder_objects import FolderObjects
from tunemill.resources.launcher import in_this_process
from tunemill.resources.pins import Pin
from tunemill.resources.store import Store
from tunemill.resources.team_store import manifest_name


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path / "project", test_datasets=None)


def run(project, store, said, **keys):
    """Prepare the data on the machine of a store. Returns the states by node."""

    def hear(node, event):
        if event["type"] == "log":
            said.append(f"{node}: {event['message']}")

    project.edit(**keys)
    pipeline = load_pipeline(project.yaml).data()
    finished = run_pipeline(pipeline, store, hear, launch=in_this_process)
    assert all(item.published or item.state == "left alone" for item in finished), finished
    return {item.node: item.state for item in finished}


@pytest.mark.slow
def test_the_second_machine_computes_nothing_and_brings_what_it_needs(project, tmp_path, s3, monkeypatch):
    monkeypatch.setattr(team, "LIGHT_BYTES", 0)
    said = []
    one, two = (Store(tmp_path / name).before(s3.url("pipelines")) for name in ("one", "two"))
    first = run(project, one, said)
    assert set(first.values()) == {"computed"}
    assert sum("published for the team" in line and "not published" not in line for line in said) == len(
        first
    )
    pipeline = load_pipeline(project.yaml).data()
    assert {item.state for item in make_plan(pipeline, two)} == {"cached"}
    assert not (tmp_path / "two" / "artifacts").exists()
    said.clear()
    assert set(run(project, two, said).values()) == {"cached"}
    # What is at the end of the graph is wanted; the rest stays where it is.
    assert {path.name for path in (tmp_path / "two" / "artifacts").iterdir()} == {"training_data"}
    assert (project.folder / "prepared" / "training_data").resolve().is_relative_to(tmp_path / "two")
    # Of one node with other settings the inputs are brought.
    said.clear()
    again = run(project, two, said, sequence_len=96)
    assert again["training_data"] == "computed"
    assert any("tokenized_sums: brought" in line for line in said), said
    assert {path.name for path in (tmp_path / "two" / "artifacts").iterdir()} == {
        "training_data",
        "tokenized",
    }
    # The first machine takes that, and a run with nothing to do asks for nothing.
    assert set(run(project, one, said).values()) == {"cached"}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    gone = Store(tmp_path / "one").before(s3.url("pipelines"))
    assert set(run(project, gone, said).values()) == {"cached"}


@pytest.mark.slow
def test_a_damaged_input_is_computed_again(project, tmp_path):
    (tmp_path / "shared").mkdir()
    url, said = f"file://{tmp_path / 'shared'}", []
    run(project, Store(tmp_path / "one").before(url), said)
    (rows,) = (tmp_path / "shared" / "files" / "training_data").rglob("rows.arrow")
    rows.write_bytes(rows.read_bytes()[:-1] + b"?")
    said.clear()
    states = run(project, Store(tmp_path / "two").before(url), said)
    assert states.pop("training_data") == "computed" and set(states.values()) == {"cached"}
    assert any("is damaged" in line for line in said)
    assert set(run(project, Store(tmp_path / "three").before(url), said).values()) == {"cached"}


@pytest.mark.slow
def test_what_is_pinned_comes_here_and_what_is_computed_again_replaces_what_the_team_has(
    project, tmp_path, monkeypatch
):
    monkeypatch.setattr(team, "LIGHT_BYTES", 0)
    (tmp_path / "shared").mkdir()
    url, said = f"file://{tmp_path / 'shared'}", []
    one, two = (Store(tmp_path / name).before(url) for name in ("one", "two"))
    run(project, one, said)
    ref = one.refs.read("pipeline", "training_data")
    # The second machine has nothing but the pin, as after a move of its folder of pins.
    two.pins.write("pipeline", "training_data", Pin(ref.stage, ref.key, ref.digest, "2026-11-28", ""))
    assert run(project, two, said)["training_data"] == "pinned"
    found = two.lookup(ref.stage, ref.key)
    assert not found.elsewhere and two.verify(found.folder) == []
    assert (project.folder / "prepared" / "training_data").resolve().is_relative_to(tmp_path / "two")
    two.pins.remove("pipeline", "training_data")
    before = two.team.objects.get(manifest_name(ref.stage, ref.key))
    three, said = Store(tmp_path / "three").before(url), []
    pipeline = load_pipeline(project.yaml).data()

    def hear(_, event):
        said.append(event.get("message", ""))

    finished = run_pipeline(pipeline, three, hear, refresh=["training_data"], launch=in_this_process)
    (again,) = [item for item in finished if item.node == "training_data"]
    assert again.state == "computed" and not any("another machine" in line for line in said)
    # The rows are the same, so what the team has may stay.
    assert three.team.objects.get(manifest_name(ref.stage, ref.key)) == before
    assert any("the same is in" in line for line in said)
    # Who only looks sees what the team has, and goes on where nobody answers.
    four = Store(tmp_path / "four").before(url)
    seen = look(pipeline, four)
    assert {node.name for node in pipeline.nodes} == set(seen.artifacts) and seen.unreached is None
    assert "In the team's store" in description(seen, pipeline.node("training_data"))
    assert "sequences" in description(seen, pipeline.node("training_data"))
    assert not (tmp_path / "four" / "artifacts").exists() and "Nothing is computed" not in summary(seen)
    shutil.move(tmp_path / "shared", tmp_path / "away")
    seen = look(
        pipeline, Store(tmp_path / "four", replace(four.team, objects=FolderObjects(url, tmp_path / "x")))
    )
    assert "the folder is gone" in seen.unreached and "the folder is gone" in summary(seen)
    assert {node.name for node in pipeline.nodes} == set(seen.artifacts)


def tunemill(project, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "tunemill.pipelines.cli", *arguments],
        cwd=project.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_commands_know_the_store_of_the_yaml_of_the_option_and_of_the_environment(project, tmp_path):
    (tmp_path / "shared").mkdir()
    url = f"file://{tmp_path / 'shared'}"
    run(project, Store(tmp_path / "one"), [])
    # What was here before is published by the next run.
    assert set(run(project, Store(tmp_path / "one").before(url), []).values()) == {"cached"}
    project.edit(pipeline={"store": url})

    def states(*options, **environment):
        code, told, said = tunemill(project, "plan", "pipeline.yml", "--json", *options, **environment)
        assert code == 0, said
        return {item["node"]: item["state"] for item in json.loads(told)["nodes"]}["training_data"]

    assert states() == "cached"
    assert states("--store", "off") == "run"
    shutil.move(tmp_path / "shared", tmp_path / "other")
    assert states(TUNEMILL_STORE=f"file://{tmp_path / 'other'}") == "cached"
    code, _, said = tunemill(project, "plan", "pipeline.yml")
    assert code == 1 and "make it once, or mount" in said and "Traceback" not in said
    code, _, said = tunemill(project, "plan", "pipeline.yml", "--store", "sftp://host/team")
    assert code == 1 and "--store: sftp://" in said


def test_a_store_that_can_be_none_is_refused_where_it_stands(project):
    project.edit(pipeline={"store": "s3://key:secret@bucket/team"})
    with pytest.raises(ConfigError, match=r"pipeline\.store.*environment"):
        load_pipeline(project.yaml)


def test_the_store_of_a_team_is_no_part_of_any_key(project, tmp_path):
    keys = []
    for store in (None, "s3://bucket/team"):
        config = yaml.safe_load(project.yaml.read_text())
        config.pop("pipeline", None)
        project.yaml.write_text(yaml.safe_dump(config | ({"pipeline": {"store": store}} if store else {})))
        pipeline = load_pipeline(project.yaml).data()
        keys.append([item.key for item in make_plan(pipeline, Store(tmp_path / "state"))])
    assert keys[0] == keys[1]
