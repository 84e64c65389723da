"""The server and the daemon over a project: a file changes, the run happens, the gate decides what is published."""

import os
import time
from pathlib import Path

import pytest
from support.project import chat_row, make_project
from support.ui import LOCATION, serve

from tunemill.pipelines.graph.lineage import contents_of, datasets_behind, lineage_in
from tunemill.resources.protocols import LINEAGE_FILE

SECONDS = 240
REPOSITORY = {"repositoryLocationName": LOCATION, "repositoryName": "__repository__"}
WATCH = {"every": 5, "settle": 4}
GATE = {"metric": "eval_loss", "of": "trained", "max": 100}


def until(what, seconds=SECONDS):
    """Wait for something to be there, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it has not happened"
        time.sleep(0.5)
    return found


def runs(ui):
    """Every run, the newest first, with its tags."""
    found = ui.ask("{runsOrError{... on Runs{results{runId status tags{key value}}}}}")["runsOrError"]
    return [{**run, "tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in found["results"]]


def finished(ui, count):
    """So many runs, all of them finished."""
    found = runs(ui)
    done = all(run["status"] in ("SUCCESS", "FAILURE", "CANCELED") for run in found)
    return found if done and len(found) >= count else None


def start_watching(ui):
    """The switch of the sensor."""
    ui.ask(
        "mutation($s: SensorSelector!){startSensor(sensorSelector: $s){__typename ... on PythonError{message}}}",
        s={**REPOSITORY, "sensorName": "pipeline_watch"},
    )


def stop_schedule(ui):
    """The switch of the schedule."""
    state = ui.ask(
        "query($s: ScheduleSelector!){scheduleOrError(scheduleSelector: $s){... on Schedule{scheduleState{id}}}}",
        s={**REPOSITORY, "scheduleName": "pipeline_schedule"},
    )["scheduleOrError"]["scheduleState"]
    ui.ask("mutation($id: String!){stopRunningSchedule(id: $id){__typename}}", id=state["id"])


def skips(ui):
    """What the watcher said when it started nothing, the newest first."""
    state = ui.ask(
        "query($s: SensorSelector!){sensorOrError(sensorSelector: $s){... on Sensor{sensorState{ticks(limit: 50)"
        "{skipReason error{message}}}}}}",
        s={**REPOSITORY, "sensorName": "pipeline_watch"},
    )["sensorOrError"]["sensorState"]
    assert not any(tick["error"] for tick in state["ticks"])
    return [tick["skipReason"] or "" for tick in state["ticks"]]


def said(ui, words):
    """Wait until the watcher says this."""
    until(lambda: any(words in reason for reason in skips(ui)))


def data_behind(folder):
    """File -> contents of each dataset behind a published model, as its own lineage names them."""
    lineage = lineage_in(folder / LINEAGE_FILE)
    return {Path(item["path"]).name: contents_of(item) for item in datasets_behind(lineage)}


def more(file):
    file.write_text(file.read_text() + chat_row(f"{file.stat().st_size} + 9", "10"))


@pytest.mark.slow
def test_a_changed_file_is_trained_on_and_published_or_not_as_the_gate_says(tmp_path):
    operations = {
        "watch": WATCH,
        "schedule": {"cron": "* * * * *", "default_status": "running"},
        "evaluate": ["trained"],
        "gates": [GATE],
        "publish": {"to": ["./published"]},
    }
    project = make_project(tmp_path / "project", max_steps=1, quantization=None, pipeline=operations)
    sums, model = project.folder / "data" / "sums.jsonl", project.folder / "published"
    with serve(project) as ui:
        # The schedule brings up to date what has never run.
        (first,) = until(lambda: finished(ui, 1))
        stop_schedule(ui)
        assert first["status"] == "SUCCESS" and first["tags"]["tunemill/asked_by"] == "schedule * * * * * UTC"
        before = data_behind(model)
        assert set(before) == {"sums.jsonl", "echoes.jsonl"}
        # A touched file is looked at and left alone.
        start_watching(ui)
        said(ui, "from now on")
        os.utime(sums)
        said(ui, "touched, but the contents are the same")
        assert len(runs(ui)) == 1
        # A changed one is one run, and its model names what it was made from.
        more(sums)
        second, _ = until(lambda: finished(ui, 2))
        assert second["status"] == "SUCCESS" and second["tags"]["tunemill/changed"] == "data/sums.jsonl"
        after = data_behind(model)
        assert after["sums.jsonl"] != before["sums.jsonl"] and after["echoes.jsonl"] == before["echoes.jsonl"]
        assert {node["staleStatus"] for node in ui.assets().values()} == {"FRESH"}
        # Past a gate that fails nothing is published.
        project.edit(pipeline={**operations, "gates": [{**GATE, "max": 0.001}]})
        ui.reload()
        more(sums)
        third, *_ = until(lambda: finished(ui, 3))
        assert third["status"] == "FAILURE" and data_behind(model) == after
        assert project.plan()["trained"].state == "cached"
        assert len(runs(ui)) == 3
