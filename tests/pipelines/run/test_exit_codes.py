"""The exit code of a run, what it says of its nodes, and what Dagster keeps of it agree, whatever became of it."""

import json

import dagster as dg
import pytest

from tunemill.pipelines.assets.instance import open_instance
from tunemill.pipelines.cli import main

GATE = {"metric": "exact_match", "of": "merged", "min": 0.9}


def ran(project, capsys, *arguments):
    """The exit code, node -> state, and the Dagster runs of one more `tunemill run`."""
    with open_instance(project.state) as instance:
        before = {run.run_id for run in instance.get_runs()}
    code = main(["run", str(project.yaml), "--state", str(project.state), "--json", *arguments])
    states = {node["node"]: node["state"] for node in json.loads(capsys.readouterr().out)["nodes"]}
    with open_instance(project.state) as instance:
        runs = [run for run in instance.get_runs() if run.run_id not in before]
        events = [
            entry.dagster_event
            for run in runs
            for entry in instance.all_logs(run.run_id)
            if entry.dagster_event
        ]
    return code, states, runs, events


def nodes_of(events, kind):
    return {event.step_key.removeprefix("pipeline__") for event in events if event.event_type == kind}


@pytest.mark.slow
def test_a_failure_fails_what_it_is_made_from_is_skipped_and_the_rest_is_kept(project, capsys):
    (project.folder / "data" / "sums.jsonl").write_text("no json\n")
    code, states, (run,), events = ran(project, capsys)
    assert code == 1 and run.status == dg.DagsterRunStatus.FAILURE
    failed = {name for name, state in states.items() if state == "failed"}
    skipped = {name for name, state in states.items() if state == "skipped"}
    assert failed == nodes_of(events, dg.DagsterEventType.STEP_FAILURE) == {"dataset_sums"}
    assert {"tokenized_sums", "trained", "evaluation_of_merged"} <= skipped
    made = nodes_of(events, dg.DagsterEventType.ASSET_MATERIALIZATION)
    assert not made & (failed | skipped) and made <= {
        name for name, state in states.items() if state in ("computed", "cached")
    }


@pytest.mark.slow
def test_a_gate_that_fails_fails_the_run_of_an_asset_that_is_there(project, capsys):
    project.edit(pipeline={"gates": [GATE], "evaluate": ["merged"]}, eval_max_new_tokens=5)
    code, states, (run,), events = ran(project, capsys)
    assert code == 1 and run.status == dg.DagsterRunStatus.FAILURE
    # The evaluation itself is no failure: its figures are kept, and its gate says no.
    assert states["evaluation_of_merged"] == "computed"
    assert nodes_of(events, dg.DagsterEventType.ASSET_MATERIALIZATION) == {"evaluation_of_merged"}
    # Asked again, with everything in place, the gate still says no; with another bound it does not.
    assert ran(project, capsys)[0] == 1
    project.edit(pipeline={"gates": [{**GATE, "min": 0.0}], "evaluate": ["merged"]})
    code, states, runs, _ = ran(project, capsys)
    assert code == 0 and set(states.values()) == {"cached"}
    assert all(run.status == dg.DagsterRunStatus.SUCCESS for run in runs)


@pytest.mark.slow
def test_what_is_left_alone_is_nobodys_failure(project, capsys):
    (project.folder / "data" / "sums.jsonl").write_text("no json\n")
    with (project.folder / "data" / "echoes.jsonl").open("a") as file:
        file.write((project.folder / "data" / "held_out.jsonl").read_text())
    code, states, (run,), events = ran(project, capsys, "--only", "tokenized_echoes")
    assert code == 0 and run.status == dg.DagsterRunStatus.SUCCESS
    assert {name for name, state in states.items() if state == "computed"} == {
        "dataset_echoes", "tokenized_echoes",
    } == nodes_of(events, dg.DagsterEventType.ASSET_MATERIALIZATION)  # fmt: skip
    assert states["dataset_sums"] == states["trained"] == "left alone"
