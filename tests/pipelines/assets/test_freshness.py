"""Owners and tags of assets, and freshness of a pipeline with a schedule, as Dagster's own daemon sees it."""

import asyncio
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.definitions.freshness_evaluator import TimeWindowFreshnessPolicyEvaluator
from dagster._core.test_utils import freeze_time

from tunemill.pipelines.assets.folder import build_definitions
from tunemill.pipelines.assets.freshness import freshness_policy
from tunemill.pipelines.assets.instance import open_instance
from tunemill.pipelines.config.operation_keys import Schedule
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.resources.launcher import in_this_process

SUMMARY = dg.AssetKey(["pipeline", "summary"])
KEYS = {"owners": ["ada@b.org", "team:a"], "tags": {"cost": "1"}, "schedule": {"cron": "0 3 * * 1-5"}}


def repository(project):
    return build_definitions(project.folder, project.state, in_this_process).get_repository_def()


def events(instance):
    return instance.fetch_materializations(SUMMARY, limit=9).records


def test_owners_and_tags_stand_on_every_asset_and_enter_no_key(project):
    before = {name: item.key for name, item in project.plan().items()}
    project.edit(pipeline=KEYS)
    assert {name: item.key for name, item in project.plan().items()} == before
    assert load_pipeline(project.yaml).tags == {"cost": "1"}
    graph = repository(project).asset_graph
    for name in [*before, "summary"]:
        node = graph.get(dg.AssetKey(["pipeline", name]))
        assert list(node.owners) == KEYS["owners"] and node.tags["cost"] == "1"
    policies = {node.key: node.freshness_policy for node in graph.asset_nodes}
    assert [key for key, policy in policies.items() if policy is not None] == [SUMMARY]
    assert policies[SUMMARY].fail_window.to_timedelta() == timedelta(days=4)


@pytest.mark.parametrize(
    ("cron", "window"),
    [
        ("0 3 * * *", timedelta(days=2)),
        ("@hourly", timedelta(hours=2)),
        ("* * * * 1-5", timedelta(days=2, minutes=2)),
        ("@monthly", timedelta(days=59)),
    ],
)
def test_it_is_overdue_when_a_time_has_passed_without_effect(cron, window):
    assert freshness_policy(Schedule(cron=cron)).fail_window.to_timedelta() == window


def test_what_is_found_in_place_is_fresh_although_nothing_runs(project):
    project.edit(pipeline=KEYS)
    served = repository(project)
    with open_instance(project.state) as instance:
        assert state(served, instance) == "UNKNOWN"
        at = datetime(2030, 1, 1, 3, tzinfo=UTC)
        with dg.build_schedule_context(instance, scheduled_execution_time=at) as context:
            tick = served.get_schedule_def("pipeline_schedule").evaluate_tick(context)
        assert "nothing to do" in tick.skip_message
        assert len(events(instance)) == 1 and state(served, instance) == "PASS"
        assert state(served, instance, after=timedelta(days=5)) == "FAIL"
        # A part that leaves something to do is no news of the whole; the run that does the rest is.
        project.edit(eval_max_new_tokens=6)
        served = repository(project)
        run(served, instance, "evaluation_of_base")
        assert len(events(instance)) == 1
        run(served, instance, "evaluation_of_trained", "evaluation_of_merged", "evaluation_of_quantized")
        newest, _ = events(instance)
        assert newest.run_id and newest.asset_materialization.description == "all 18 nodes are in place"


def run(served, instance, *names):
    job = served.get_job("pipeline_evaluate")
    keys = [dg.AssetKey(["pipeline", name]) for name in names]
    assert job.execute_in_process(instance=instance, asset_selection=keys).success


def state(served, instance, after=timedelta()):
    from dagster._core.loader import LoadingContextForTest

    node = served.asset_graph.get(SUMMARY)
    with freeze_time(datetime.now(UTC) + after):
        evaluator = TimeWindowFreshnessPolicyEvaluator()
        return asyncio.run(evaluator.evaluate_freshness(LoadingContextForTest(instance), node)).value
