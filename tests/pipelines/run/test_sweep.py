"""A sweep that runs: shared nodes once, survivors of halving as they are alone, nothing twice after kill -9."""

import io
import json
import os
import re
import signal
import subprocess
import sys

import pytest
from rich.console import Console
from support.project import make_project

from tunemill.pipelines.assets.instance import open_instance
from tunemill.pipelines.assets.run import run_pipeline
from tunemill.pipelines.assets.sweep_run import run_sweep
from tunemill.pipelines.commands.sweep_best import best_of
from tunemill.pipelines.commands.sweep_html import page
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.sweep import load_sweep
from tunemill.pipelines.graph.sweep_plan import plan_sweep
from tunemill.pipelines.graph.sweep_settings import rung_overrides
from tunemill.pipelines.run.pinned import pin
from tunemill.pipelines.run.record import last_report
from tunemill.pipelines.run.sweep import PointRun, SweepRun, lost_at
from tunemill.pipelines.run.sweep_table import LiveTable
from tunemill.resources.errors import LaunchError
from tunemill.resources.launcher import in_this_process
from tunemill.resources.store import Store

# One dataset and no evaluation: what is left is trained and merged.
SMALL = {
    "datasets": [{"path": "data/sums.jsonl", "type": "chat_template"}],
    "quantization": None,
    "eval_max_new_tokens": None,
}


def sweep_project(folder, sweep, settings=None, **keys):
    block = {"evaluate": [], "sweep": sweep} | ({} if settings is None else {"sweep_settings": settings})
    return make_project(folder, **{**SMALL, "pipeline": block, **keys})


def run(project, parallel=1, state=None, watch=lambda *_: None):
    """Run the project's sweep as the command does, with bodies in this process."""
    store = Store(state or project.state)
    given = load_sweep(project.yaml)
    rungs = rung_overrides(given.settings, given.document)
    sweep = load_sweep(project.yaml, rungs)
    points = plan_sweep(sweep, store)
    found = {one.name: one for one in run_sweep(sweep, points, store, watch, parallel, in_this_process)}
    return sweep, [found[one.point.name] for one in sweep.pipelines]


def computed(points):
    """node -> how often it was computed."""
    found = {}
    for point in points:
        for name, result in point.results.items():
            found[name] = found.get(name, 0) + result.computed
    return found


@pytest.mark.slow
def test_eight_learning_rates_tokenize_once_and_a_second_run_computes_nothing(tmp_path):
    rates = [0.001 * (number + 1) for number in range(8)]
    project = sweep_project(tmp_path / "p", {"learning_rate": rates}, max_steps=1, test_datasets=None)
    sweep, points = run(project)
    assert {point.state for point in points} == {"finished"}
    counts = computed(points)
    assert counts.pop("trained") == counts.pop("merged") == 8
    assert "tokenized_sums" in counts and set(counts.values()) == {1}
    links = [(project.folder / "outputs" / point.name / "merged").resolve() for point in points]
    assert len(set(links)) == 8 and all(link.is_dir() for link in links)
    assert len({point.results["trained"].published.digest for point in points}) == 8
    assert all(last_report(Store(project.state), point.pipeline.name) for point in points)
    with open_instance(project.state) as instance:
        keys = {key.path[0] for key in instance.all_asset_keys()}
        assert keys == {point.pipeline.name for point in points}
        assert len(instance.get_run_records()) == 8
    _, again = run(project)
    assert {point.state for point in again} == {"finished"} and not any(computed(again).values())
    with open_instance(project.state) as instance:
        assert len(instance.get_run_records()) == 8
    best = best_of(points, sweep.settings)
    assert best.metric == "last_loss" and best.better == "lower"
    assert best.ranked[0].value == min(one.value for one in best.ranked)


@pytest.mark.slow
def test_halving_stops_the_worse_and_survivors_are_what_they_are_alone(tmp_path):
    grid = {"learning_rate": [0.0001, 0.02, 0.001, 0.004]}
    settings = {"rungs": [2, 4], "metric": "last_loss", "of": None}
    project = sweep_project(tmp_path / "p", grid, settings, max_steps=6)
    heard = []
    sweep, points = run(project, watch=lambda *event: heard.append(event))
    states = [point.state for point in points]
    assert sorted(states) == ["finished", "stopped", "stopped", "stopped"]
    first = [point for point in points if "at step 2" in point.why]
    later = [point for point in points if "at step 4" in point.why]
    assert len(first) == 2 and len(later) == 1 and all("went on" in point.why for point in first + later)
    (survivor,) = [point for point in points if point.state == "finished"]
    assert [*survivor.curve.held_out] == [2, 4, 6]
    losses = [(point.curve.held_out[2], point.why) for point in points]
    assert {why for _, why in sorted(losses)[2:]} == {point.why for point in first}
    # Of a stopped point there is no model, and it is never the best.
    assert all("trained" not in point.results for point in points if point is not survivor)
    best = best_of(points, sweep.settings)
    assert [one.point.name for one in best.ranked] == [survivor.name]
    shown = page(sweep, points, best)
    assert shown.count("stroke-dasharray") == 6 and "is no finished training" in shown

    # Killed or not, the same points go on: what was told at the rungs is kept.
    _, again = run(project)
    assert [point.state for point in again] == states and not any(computed(again).values())
    assert [point.why for point in again] == [point.why for point in points]

    elsewhere = Store(tmp_path / "elsewhere")
    pipeline = load_pipeline(project.yaml, [f"pipeline.point={survivor.name}"])
    finished = {item.node: item for item in run_pipeline(pipeline, elsewhere, launch=in_this_process)}
    assert finished["trained"].state == "computed"
    assert finished["trained"].published.digest == survivor.results["trained"].published.digest
    assert finished["merged"].published.digest == survivor.results["merged"].published.digest


@pytest.mark.slow
def test_a_point_that_fails_or_has_no_time_is_said_so_and_is_never_the_best(tmp_path):
    grid = {"sequence_len": [128, 2]}
    project = sweep_project(tmp_path / "p", grid, max_steps=1, test_datasets=None)
    sweep, points = run(project)
    assert [point.state for point in points] == ["finished", "failed"]
    assert "nothing is left to train on" in points[1].why and "trained" not in points[1].results
    assert [one.point.name for one in best_of(points, sweep.settings).ranked] == ["sequence_len_128"]
    grid["sequence_len"].append(64)
    project.edit(pipeline={"evaluate": [], "sweep": grid, "sweep_settings": {"max_seconds": 1e-9}})
    _, late = run(project)
    # What is there already takes no time.
    assert [point.state for point in late] == ["finished", "not finished", "not finished"]
    assert "max_seconds" in late[2].why and not any(computed(late).values())


@pytest.mark.slow
def test_what_is_there_is_still_compared_and_what_is_pinned_needs_nothing(tmp_path):
    # Nothing comes behind the training, and all that is before it is part of it.
    keys = {"adapter": None, "lora_r": None, "lora_alpha": None, "lora_target_linear": None, "max_steps": 3}
    best = {"load_best_model_at_end": True, "save_steps": 1, "eval_steps": 1}
    grid = {"learning_rate": [0.0001, 0.02, 0.001, 0.004]}
    block = {"evaluate": [], "leakage": False, "sweep": grid, "sweep_settings": {"rungs": [2]}}
    project = make_project(tmp_path / "p", **{**SMALL, **keys, **best, "pipeline": block})
    _, points = run(project)
    states = [point.state for point in points]
    assert sorted(states) == ["finished", "finished", "stopped", "stopped"]
    point = points[states.index("finished")].pipeline.name
    for node in ("tokenized_sums", "trained"):
        pin(f"{point}/{node}", project.store)
        heard = set()
        _, again = run(
            project, watch=lambda _, node, event, heard=heard: heard.add((node, event.get("state")))
        )
        assert [one.state for one in again] == states and not any(computed(again).values())
        assert (node, "pinned") in heard
        assert [one.curve.held_out for one in again] == [one.curve.held_out for one in points]


COMMAND = [sys.executable, "-m", "tunemill.pipelines.cli"]


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on_and_computes_nothing_twice(tmp_path):
    grid = {"learning_rate": [0.001, 0.002]}
    project = sweep_project(tmp_path / "p", grid, max_steps=3, test_datasets=None)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    begun = subprocess.Popen(
        [*COMMAND, "sweep", "pipeline.yml"], cwd=project.folder, env=environment, stderr=subprocess.PIPE, text=True,
        stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    told = []
    for line in begun.stderr:
        told.append(line)
        if "lr_0_002/trained: started" in line:
            os.kill(begun.pid, signal.SIGKILL)
            break
    told += begun.stderr.readlines()
    begun.wait()
    first = {line.split(":")[0].split("/")[1]: line.split("/")[0] for line in told if ": computed in" in line}
    call = {"cwd": project.folder, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run([*COMMAND, "sweep", "pipeline.yml", "--json"], **call)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    second = [
        (point["point"], node["node"])
        for point in outcome["points"]
        for node in point["nodes"]
        if node["state"] == "computed"
    ]
    assert {point["state"] for point in outcome["points"]} == {"finished"}
    assert "lr_0_001" in first.values() and second == [("lr_0_002", "trained"), ("lr_0_002", "merged")]
    shown = subprocess.run([*COMMAND, "status"], **call)
    assert re.search(r"pipeline_lr_0_002 +merged +current", shown.stdout), shown.stdout


def test_who_does_not_go_on_at_a_rung():
    def point(loss):
        made = PointRun(None, None)
        made.curve.held_out = {} if loss is None else {5: loss}
        return made

    points = [point(loss) for loss in (3.0, 1.0, float("nan"), None, 2.0)]
    lost = [lost_at(one, points, 5, 0.5) is not None for one in points]
    assert lost == [True, False, True, False, False]
    assert lost_at(points[0], points, 5, 0.01) == "at step 5 its held-out loss 3 was the 3. of 4; 1 went on"
    assert [lost_at(one, points[:1], 5, 0.5) for one in points[:1]] == [None]


def test_what_failed_is_told_without_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", token := "hf_that_nobody_may_read")

    def refuse(_call, _sink):
        raise LaunchError(f"not with {token}\nnor again")

    project = sweep_project(tmp_path / "p", {"learning_rate": [1, 2]})
    sweep = load_sweep(project.yaml)
    heard = []
    points = plan_sweep(sweep, project.store)
    run = SweepRun(points, sweep.settings, project.store, lambda *event: heard.append(event), launch=refuse)
    told = [point.failure(name) for point in run.run() for name in point.failures]
    assert told and {point.state for point in run.points} == {"failed"}
    assert all(point.why.startswith("tokenizer: not with ") for point in run.points)
    assert token not in f"{told} {heard} {[point.why for point in run.points]}"


def test_the_live_table_says_of_each_point_how_it_stands():
    console = Console(file=io.StringIO(), width=120, height=30)
    table = LiveTable(["lr_1", "lr_2", "lr_3", "lr_4"], console)
    table("lr_1", "trained", {"type": "progress", "done": 3, "total": 10, "unit": "steps"})
    table("lr_1", "trained", {"type": "step", "step": 3, "metrics": {"loss": 1.23456, "eval_loss": 2.5}})
    table("lr_2", "", {"type": "stopped", "message": "at step 2 it was the last"})
    table("lr_3", "trained", {"type": "failure", "message": "it broke"})
    console.print(table.frame())
    said, _, *lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert said == ["lr_3/trained:", "FAILED:", "it", "broke"]
    assert lines[0] == ["lr_1", "running", "trained", "3/10", "steps", "1.235", "2.5"]
    assert [line[:2] for line in lines[1:]] == [["lr_2", "stopped"], ["lr_3", "failed"], ["lr_4", "waiting"]]
