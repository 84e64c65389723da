"""Runs that crash, hang or lose their daemon: what is tried again, what is not, and what Dagster says of them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster._core.execution.api import _reexecute_job, execute_run
from support.project import make_project
from support.ui import serve

from tunemill.pipelines.assets import assets
from tunemill.pipelines.assets.folder import build_definitions
from tunemill.pipelines.assets.instance import BEFORE, SETTINGS, dagster_home
from tunemill.pipelines.assets.run_process import TAG, end_lost_runs, process_tag
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.run.materialize import Session
from tunemill.resources.errors import LaunchError
from tunemill.resources.launcher import in_child, in_this_process
from tunemill.resources.lease import Holder, this_host

NODE = "dataset_sums"
KEY = dg.AssetKey(["pipeline", NODE])
CRASH = "the stage's process was ended by SIGKILL"


def crashing(times, *, crashed=True):
    """A launcher whose first launches end as a killed process does."""
    launched = []

    def launch(call, sink):
        launched.append(call)
        sink({"type": "output", "text": f"printed by attempt {len(launched)}\n"})
        if len(launched) <= times:
            raise LaunchError(CRASH, crashed=crashed, user=not crashed)
        in_this_process(call, sink)

    return launch, launched


def run_node(project, launch, instance):
    definitions = build_definitions(project.folder, project.state, launch)
    return dg.materialize(
        definitions.assets,
        instance=instance,
        selection=dg.AssetSelection.assets(KEY),
        raise_on_error=False,
    )


@pytest.fixture
def robust(tmp_path, monkeypatch):
    monkeypatch.setattr(assets, "RETRY_SECONDS", 0.01)
    return make_project(tmp_path / "project", pipeline={"retries": 2})


def test_a_stage_that_crashed_goes_on_and_the_ui_reads_what_it_prints(robust, tmp_path):
    launch, launched = crashing(2)
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        outcome = run_node(robust, launch, instance)
        assert outcome.success and len(launched) == 3
        assert sum(event.is_step_up_for_retry for event in outcome.all_events) == 2
        run = instance.get_run_by_id(outcome.run_id)
        assert Holder.from_text(run.tags[TAG]).pid == os.getpid()
    printed = "".join(path.read_text() for path in (tmp_path / "dagster").rglob("*.out"))
    assert "printed by attempt 1" in printed and "printed by attempt 3" in printed


def test_a_mistake_is_not_tried_again_and_no_frames_of_the_engine_follow_it(robust):
    launch, launched = crashing(1, crashed=False)
    with dg.DagsterInstance.ephemeral() as instance:
        outcome = run_node(robust, launch, instance)
    assert not outcome.success and len(launched) == 1
    (failure,) = (event.step_failure_data for event in outcome.all_events if event.is_step_failure)
    assert failure.user_failure_data.description == CRASH
    assert failure.error.message == CRASH and failure.error.stack == []


def test_a_run_from_the_failure_of_another_ends_with_a_report_that_each_node_links_to(robust):
    launch, _ = crashing(1, crashed=False)

    def launch_slowly(call, sink):
        # Names of records tell seconds apart.
        time.sleep(1.1)
        launch(call, sink)

    definitions = build_definitions(robust.folder, robust.state, launch_slowly)
    chosen = [dg.AssetKey(["pipeline", name]) for name in (NODE, "dataset_echoes")]
    job = InMemoryJob(
        definitions.resolve_job_def("pipeline_bring_up_to_date").get_subset(asset_selection=set(chosen))
    )
    with dg.DagsterInstance.ephemeral() as instance:
        first = instance.create_run_for_job(job.get_definition())
        execute_run(job, first, instance)
        again = dg.ReexecutionOptions.from_failure(first.run_id, instance)
        second = _reexecute_job(job, None, again, None, instance, raise_on_error=True)
        (made,) = second.get_asset_materialization_events()
        linked = made.step_materialization_data.materialization.metadata["report"].value
    assert first.run_id != second.run_id
    assert Path(linked).name.endswith(f"-{second.run_id[:8]}.html") and Path(linked).is_file()


def test_a_stage_that_crashes_each_time_fails_in_the_end(robust):
    launch, launched = crashing(9)
    with dg.DagsterInstance.ephemeral() as instance:
        assert not run_node(robust, launch, instance).success
    assert len(launched) == 3


def test_a_run_that_has_taken_its_time_begins_no_stage(tmp_path):
    project = make_project(tmp_path / "project", pipeline={"timeout_seconds": 1e-9})
    finished = project.run(only={NODE})[NODE]
    assert finished.state == "failed" and "pipeline.timeout_seconds: 1e-09" in finished.message


def test_what_is_computed_ahead_of_its_turn_takes_of_the_runs_time(tmp_path):
    project = make_project(tmp_path / "project", pipeline={"timeout_seconds": 0.2})

    def computed_ahead(_name, _hear):
        time.sleep(0.3)

    session = Session(load_pipeline(project.yaml), project.store, in_this_process, ahead=computed_ahead)
    outcome = dg.materialize(
        assets.build_assets(session), selection=dg.AssetSelection.assets(KEY), raise_on_error=False
    )
    (failure,) = (event.step_failure_data for event in outcome.all_events if event.is_step_failure)
    assert "not begun: the run has taken its time (pipeline.timeout_seconds: 0.2)" in failure.error.message


def test_of_runs_without_a_process_only_those_of_this_machine_are_ended():
    gone = Holder(this_host(), 2**22 + 1, "1", "").as_text()
    far = Holder("elsewhere", 2**22 + 1, "1", "").as_text()
    with dg.DagsterInstance.ephemeral() as instance:

        @dg.job
        def some() -> None: ...

        runs = {
            name: instance.create_run_for_job(some, status=dg.DagsterRunStatus.STARTED, tags=tags).run_id
            for name, tags in {
                "gone": {TAG: gone},
                "far": {TAG: far},
                "here": process_tag(),
                "none": {},
            }.items()
        }
        end_lost_runs(instance)
        found = {name: instance.get_run_by_id(run_id).status.value for name, run_id in runs.items()}
    assert found == {"gone": "FAILURE", "far": "STARTED", "here": "STARTED", "none": "STARTED"}


PROCESSES = """\
from pathlib import Path

import dagster as dg

from tunemill.pipelines.assets.folder import build_definitions


def some_job():
    own = build_definitions(Path({folder!r}), Path({state!r}))
    keys = [dg.AssetKey(["pipeline", name]) for name in ("dataset_sums", "dataset_echoes")]
    chosen = dg.define_asset_job("some", dg.AssetSelection.assets(*keys), executor_def=dg.multiprocess_executor)
    return dg.Definitions(own.assets, jobs=[chosen]).resolve_job_def("some")
"""


@pytest.mark.slow
def test_a_run_whose_steps_are_processes_is_not_taken_for_lost_when_one_of_them_ends(tmp_path):
    project = make_project(tmp_path / "project")
    places = {"folder": str(project.folder), "state": str(project.state)}
    (tmp_path / "apart.py").write_text(PROCESSES.format(**places))
    (tmp_path / "dagster").mkdir()
    job = ReconstructableJob.for_file(str(tmp_path / "apart.py"), "some_job")
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        with dg.execute_job(job, instance) as done:
            assert done.success
        assert TAG not in instance.get_run_by_id(done.run_id).tags


def test_settings_that_nobody_has_edited_are_brought_up_to_date(tmp_path):
    settings = dagster_home(tmp_path) / "dagster.yaml"
    assert settings.read_text() == SETTINGS and yaml.safe_load(SETTINGS)["run_monitoring"]["enabled"]
    settings.write_text(BEFORE)
    dagster_home(tmp_path)
    assert settings.read_text() == SETTINGS
    settings.write_text(BEFORE + "# mine\n")
    dagster_home(tmp_path)
    assert settings.read_text().endswith("# mine\n")


@pytest.mark.slow
def test_a_training_that_is_killed_goes_on_from_its_checkpoint_to_the_same_bytes(tmp_path):
    plain = make_project(tmp_path / "plain", save_steps=1)
    wanted = plain.run(only={"trained"}, launch=in_child)["trained"].published.digest
    project = make_project(tmp_path / "project", save_steps=1, pipeline={"retries": 1})
    said, killed = [], []

    def observe(_node, event):
        said.append(event.get("message"))
        if event["type"] == "checkpoint" and not killed:
            killed.extend(children())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    finished = project.run(only={"trained"}, launch=in_child, observe=observe)["trained"]
    assert killed and finished.state == "computed" and finished.message is None
    assert any(text and "resuming from checkpoint-" in text for text in said)
    assert finished.published.digest == wanted


def children():
    """The processes of stages that this process has started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                is_stage = b"tunemill.resources.launcher" in (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if parent == os.getpid() and is_stage:
                found.append(int(entry.name))
    return found


@pytest.mark.slow
def test_a_run_that_dies_with_its_daemon_gives_the_gpu_back_is_failed_and_goes_on(tmp_path):
    project = make_project(tmp_path / "project")
    # Whoever trains second gets to it while the first is at it.
    project.run(only={"training_data", "base_model"})
    long = {**project.config(), "max_steps": 3000, "save_steps": 100, "logging_steps": 1}
    (project.folder / "long.yml").write_text(yaml.safe_dump({**long, "pipeline": {"name": "long"}}))
    with serve(project) as ui:
        run_id = ui.launch(upstream_of_trained(ui))
        wait_until(lambda: [*(project.state / "building").glob("sft/*/*/checkpoints/checkpoint-*")])
        command = [sys.executable, "-m", "tunemill.pipelines.cli", "run", str(project.yaml)]
        with (tmp_path / "said").open("wb") as said:
            other = subprocess.Popen(
                [*command, "--state", str(project.state), "--only", "trained"],
                stderr=said,
                cwd=project.folder,
            )
        wait_until(lambda: "for the GPU: waiting for process" in (tmp_path / "said").read_text())
        points = observed(ui)
        assert points and {"loss", "learning_rate", "step"} <= set(points[0])
        os.killpg(ui.process, signal.SIGKILL)
        assert other.wait(180) == 0, (tmp_path / "said").read_text()
    with serve(project) as ui:
        assert ui.wait(run_id, 90) == "FAILURE"
        again = ui.launch(upstream_of_trained(ui))
        assert ui.wait(again, 240) == "SUCCESS"
        assert len(observed(ui)) <= 2 * 110
        assert "resuming from checkpoint-" in ui.said(again)


def upstream_of_trained(ui):
    nodes = ("tokenizer", "dataset_", "tokenized_", "training_data", "base_model", "trained")
    names = [name for name in ui.assets() if name.startswith("long/") and "held_out" not in name]
    return [name.split("/") for name in names if name.split("/")[1].startswith(nodes)]


def observed(ui):
    """The figures of each observation of the training."""
    answer = ui.ask(
        "query($key: AssetKeyInput!){assetOrError(assetKey: $key){... on Asset{assetObservations(limit: 500)"
        "{metadataEntries{label}}}}}",
        key={"path": ["long", "trained"]},
    )["assetOrError"]["assetObservations"]
    return [[entry["label"] for entry in one["metadataEntries"]] for one in answer]


def wait_until(condition, seconds=180):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)
