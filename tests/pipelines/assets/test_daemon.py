"""Dagster's server and its daemon over a project: a file changes, the run happens, the gate decides what is published."""

import json
import os
import time
from pathlib import Path

import pytest
from support.project import chat_row, make_project
from support.ui import serve

from tunemill.pipelines.graph.load import load_pipeline
from tunemill.resources.protocols import LINEAGE_FILE

SECONDS = 150
INSTIGATOR = (
    "{repositoriesOrError{... on RepositoryConnection{nodes{sensors{name sensorState{id selectorId status ticks(limit: 20)"
    "{status skipReason runIds}}} schedules{name scheduleState{id status}}}}}}"
)


def sensor(ui, name):
    (repository,) = ui.ask(INSTIGATOR)["repositoriesOrError"]["nodes"]
    return next(one for one in repository["sensors"] if one["name"] == name)["sensorState"]


def until(what, seconds=SECONDS):
    """Wait for something to be there, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it has not happened"
        time.sleep(0.5)
    return found


def runs(ui):
    """Every run, the newest first, with its tags."""
    found = ui.ask("{runsOrError{... on Runs{results{runId status tags{key value}}}}}")["runsOrError"]["results"]
    return [{**run, "tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in found]


def finished(ui, count):
    """So many runs, all of them finished."""
    found = runs(ui)
    done = len(found) >= count and all(run["status"] in ("SUCCESS", "FAILURE", "CANCELED") for run in found)
    return found if done else None


def skips(ui):
    return [tick["skipReason"] or "" for tick in sensor(ui, "pipeline_watch")["ticks"]]


def trained_on(project, place):
    """The digests of the contents of the datasets behind a model, as its own lineage names them."""
    lineage = json.loads((place / LINEAGE_FILE).read_text())
    return json.dumps(lineage)


@pytest.mark.slow
def test_a_changed_file_is_trained_on_and_published_or_not_as_the_gate_says(tmp_path):
    project = make_project(
        tmp_path / "project",
        max_steps=1,
        quantization=None,
        pipeline={
            "watch": {"every": 5, "settle": 5, "default_status": "running"},
            "schedule": {"cron": "* * * * *", "default_status": "running"},
            "evaluate": ["trained"],
            "gates": [{"metric": "eval_loss", "of": "trained", "max": 100}],
            "publish": {"to": ["./published"]},
        },
    )
    sums, model = project.folder / "data" / "sums.jsonl", project.folder / "published"
    with serve(project) as ui:
        # The schedule brings up to date what has never run.
        (first,) = until(lambda: finished(ui, 1))
        assert first["status"] == "SUCCESS" and first["tags"]["tunemill/asked_by"].startswith("schedule")
        before = published_from(model)
        assert set(before) >= {"sums.jsonl", "echoes.jsonl"}
        # Touched, looked at, and left alone.
        until(lambda: any("from now on" in said or "unchanged" in said for said in skips(ui)))
        os.utime(sums)
        until(lambda: any("touched, but" in said for said in skips(ui)))
        assert len(runs(ui)) == 1
        # Changed: one run, of a model that is published and names what it was made from.
        sums.write_text(sums.read_text() + chat_row("1 + 9", "10"))
        second, _ = until(lambda: finished(ui, 2))
        assert second["status"] == "SUCCESS"
        after = published_from(model)
        assert after["sums.jsonl"] != before["sums.jsonl"] and after["echoes.jsonl"] == before["echoes.jsonl"]
