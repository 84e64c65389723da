"""Schedules, watchers and jobs of a folder, asked as the daemon asks them."""

import json
import os
from datetime import UTC, datetime

import dagster as dg
import pytest
from support.project import chat_row

from tunemill.pipelines.assets.folder import build_definitions
from tunemill.pipelines.assets.instance import open_instance
from tunemill.pipelines.assets.requests import CHANGED
from tunemill.resources.launcher import in_this_process

SCHEDULE = {"cron": "0 3 * * 1-5", "timezone": "Europe/Berlin"}
WATCH = {"every": 5, "settle": 0}
GATES = [{"metric": "exact_match", "of": "merged", "min": 0.0}]
OPERATIONS = {"schedule": SCHEDULE, "watch": WATCH, "gates": GATES}


@pytest.fixture
def operated(project):
    project.edit(pipeline=OPERATIONS)
    return project


@pytest.fixture
def instance(operated):
    with open_instance(operated.state) as instance:
        yield instance


def repository(project):
    return build_definitions(project.folder, project.state, in_this_process).get_repository_def()


def tick(repository, instance):
    at = datetime(2030, 1, 1, 3, tzinfo=UTC)
    # A context that is not left keeps its instance as that of the process.
    with dg.build_schedule_context(instance, scheduled_execution_time=at) as context:
        return repository.get_schedule_def("pipeline_schedule").evaluate_tick(context)


def look(repository, instance, cursor, sensor="pipeline_watch"):
    with dg.build_sensor_context(instance, cursor=cursor, repository_def=repository) as context:
        return repository.get_sensor_def(sensor).evaluate_tick(context)


def test_a_tick_asks_for_what_is_not_in_place_and_else_says_that_all_is(operated, instance):
    served = repository(operated)
    done = tick(served, instance)
    assert done.run_requests == [] and done.skip_message == "nothing to do: 18 nodes in place"
    operated.edit(eval_max_new_tokens=6)
    (asked,) = tick(served, instance).run_requests
    assert {key.path[-1] for key in asked.asset_selection} == {
        f"evaluation_of_{what}" for what in ("base", "trained", "merged", "quantized")
    }
    # A run without an asset's own checks is refused.
    asked_checks = {(key.asset_key.path[-1], key.name) for key in asked.asset_check_keys}
    assert asked_checks == {
        ("evaluation_of_merged", "exact_match_min"),
        *(
            (f"evaluation_of_{what}", "scores_are_finite")
            for what in ("base", "trained", "merged", "quantized")
        ),
    }
    served.get_implicit_global_asset_job_def().get_subset(
        asset_selection=set(asked.asset_selection), asset_check_selection=set(asked.asset_check_keys)
    )
    assert asked.run_key == "2030-01-01T03:00:00+00:00"
    assert asked.tags["tunemill/asked_by"] == "schedule 0 3 * * 1-5 Europe/Berlin"


def test_a_schedule_that_cannot_plan_fails_and_says_why(operated, instance):
    served = repository(operated)
    operated.edit(learnin_rate=1)
    with pytest.raises(Exception, match="schedule") as failed:
        tick(served, instance)
    assert "did you mean `learning_rate`" in str(failed.value.__cause__)


def test_other_nodes_than_were_loaded_are_not_run(operated, instance):
    served = repository(operated)
    operated.edit(pipeline={**OPERATIONS, "gates": [*GATES, {**GATES[0], "of": "trained"}]})
    with pytest.raises(Exception, match="schedule") as failed:
        tick(served, instance)
    assert "reload the definitions" in str(failed.value.__cause__)


def test_what_a_run_is_at_is_not_asked_for_again(operated, instance):
    served = repository(operated)
    operated.edit(eval_max_new_tokens=6)
    (asked,) = tick(served, instance).run_requests
    job = served.get_job("pipeline_bring_up_to_date")
    run = instance.create_run_for_job(job, tags=asked.tags, status=dg.DagsterRunStatus.STARTED)
    assert tick(served, instance).skip_message == f"run {run.run_id} is at it"
    operated.edit(eval_max_new_tokens=7)
    assert len(tick(served, instance).run_requests) == 1


def test_a_changed_file_starts_one_run_that_names_it(operated, instance):
    served, sums = repository(operated), operated.folder / "data" / "sums.jsonl"
    first = look(served, instance, None)
    assert first.run_requests == [] and "from now on" in first.skip_message
    os.utime(sums)
    touched = look(served, instance, first.cursor)
    assert touched.run_requests == [] and "touched" in touched.skip_message
    sums.write_text(sums.read_text() + chat_row("1 + 9", "10"))
    changed = look(served, instance, touched.cursor)
    (asked,) = changed.run_requests
    assert asked.tags[CHANGED] == "data/sums.jsonl" and asked.tags["tunemill/asked_by"] == "watch"
    names = {key.path[-1] for key in asked.asset_selection}
    assert {"dataset_sums", "trained", "evaluation_of_merged"} <= names and "dataset_echoes" not in names
    (event,) = changed.asset_events
    assert event.asset_key.path[-1] == "source_of_dataset_sums"
    # The same look again, as after a daemon that died before it had noted this one, asks by the same name.
    again = look(served, instance, touched.cursor)
    assert look(served, instance, changed.cursor).run_requests == []
    assert len(again.run_requests) == 1


def test_a_source_that_is_gone_is_a_reason_to_wait(operated, instance):
    served, sums = repository(operated), operated.folder / "data" / "sums.jsonl"
    first = look(served, instance, None)
    sums.unlink()
    gone = look(served, instance, first.cursor)
    assert gone.run_requests == [] and "waiting: " in gone.skip_message and "sums.jsonl" in gone.skip_message
    assert gone.cursor == first.cursor


def test_changed_sources_are_seen_and_start_nothing(operated, instance):
    served, sums = repository(operated), operated.folder / "data" / "sums.jsonl"
    first = look(served, instance, None, "tunemill_sources")
    assert first.asset_events == [], "the run has noted what it read"
    os.utime(sums)
    assert look(served, instance, first.cursor, "tunemill_sources").asset_events == []
    sums.write_text(sums.read_text() + chat_row("1 + 9", "10"))
    second = look(served, instance, first.cursor, "tunemill_sources")
    assert [event.asset_key.path[-1] for event in second.asset_events] == ["source_of_dataset_sums"]
    assert second.run_requests == [] and set(json.loads(second.cursor)) == {"remote", "marks"}


@pytest.mark.usefixtures("instance")
def test_every_pipeline_has_its_jobs_and_evaluating_alone_trains_nothing(operated):
    served = repository(operated)
    jobs = {name: served.get_job(name) for name in served.job_names if name.startswith("pipeline_")}
    steps = {
        name.removeprefix("pipeline_"): {key.path[-1] for key in job.asset_layer.executable_asset_keys}
        for name, job in jobs.items()
    }
    nodes = set(operated.plan())
    assert steps["bring_up_to_date"] == steps["compute_again"] == nodes
    assert steps["evaluate"] == steps["evaluate_again"] == {
        "dataset_held_out", "tokenized_held_out", "evaluation_data",
        *(f"evaluation_of_{what}" for what in ("base", "trained", "merged", "quantized")),
    }  # fmt: skip
    assert all(job.description for job in jobs.values())


def test_a_run_with_the_tag_computes_again_and_one_without_takes_what_is_there(operated, instance):
    served, name = repository(operated), "evaluation_of_merged"
    computed = operated.plan()[name].cached.manifest["started"]
    job = served.get_job("pipeline_evaluate")
    selection = [dg.AssetKey(["pipeline", name])]
    assert job.execute_in_process(instance=instance, asset_selection=selection).success
    assert operated.plan()[name].cached.manifest["started"] == computed
    again = served.get_job("pipeline_evaluate_again")
    outcome = again.execute_in_process(instance=instance, asset_selection=selection)
    # The run's record is told of the summary too.
    (event,) = (e for e in outcome.get_asset_materialization_events() if e.asset_key in selection)
    metadata = event.step_materialization_data.materialization.metadata
    assert metadata["state"].value == "computed" and "--refresh" in metadata["reasons"].value
