"""What is made without Dagster's decorator is what the decorator makes."""

import json
import warnings

import dagster as dg
from dagster._core.remote_representation.external_data import RepositorySnap

from tunemill.pipelines.assets.one_asset import one_asset, one_source

KEY, UPSTREAM = dg.AssetKey(["p", "merged"]), [dg.AssetKey(["p", "trained"]), dg.AssetKey(["q", "base"])]
SAID = {
    "group_name": "p",
    "description": "The adapter, folded in.",
    "code_version": "c0de",
    "kinds": {"merged", "safetensors"},
    "tags": {"team": "a"},
    "owners": ["a@b.org"],
    "metadata": {"rows": 3},
    "automation_condition": dg.AutomationCondition.eager(),
}
RUN = {"op_tags": {"dagster/priority": "1"}, "retry_policy": dg.RetryPolicy(max_retries=2), "pool": "gpu"}
RESOURCES = {"it": dg.ResourceDefinition.hardcoded_resource("a resource")}


def _snapshot(asset):
    definitions = dg.Definitions([asset], executor=dg.in_process_executor)
    told = dg.serialize_value(RepositorySnap.from_def(definitions.get_repository_def()))
    # The decorator joins the parts of an input's name by one line, so that a/b_c and a_b/c clash.
    for key in UPSTREAM:
        told = told.replace("_".join(key.path), "__".join(key.path))
    return json.loads(told.replace("____", "__"))


def test_the_asset_is_the_one_that_the_decorator_makes():
    @dg.asset(key=KEY, deps=UPSTREAM, resource_defs=RESOURCES, required_resource_keys={"it"}, **SAID, **RUN)
    def decorated() -> dg.MaterializeResult:
        return dg.MaterializeResult()

    made = one_asset(
        lambda _: dg.MaterializeResult(),
        dg.AssetSpec(KEY, deps=UPSTREAM, **SAID),
        resources=RESOURCES,
        **RUN,
    )
    assert _snapshot(made) == _snapshot(decorated)


def test_the_source_is_the_one_that_the_decorator_makes_and_is_observed():
    spec = dg.AssetSpec(
        dg.AssetKey(["p", "source"]),
        group_name="p",
        description="A file.",
        metadata={"reads": "a"},
        kinds={"source"},
    )

    def observe():
        yield dg.ObserveResult(asset_key=spec.key, data_version=dg.DataVersion("d1"))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        decorated = dg.multi_observable_source_asset(specs=[spec], name="p__source")(observe)
        made = one_source(observe, spec)
    assert _snapshot(made) == _snapshot(decorated)
    outcome = dg.Definitions([made]).resolve_implicit_global_asset_job_def().execute_in_process()
    (event,) = outcome.get_asset_observation_events()
    assert event.asset_observation_data.asset_observation.tags["dagster/data_version"] == "d1"


def test_its_body_runs_with_its_resource_and_its_checks_are_reported():
    seen = []

    def body(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        seen.append((context.asset_key, context.resources.it))
        found = dg.AssetCheckResult(passed=False, check_name="is_whole", severity=dg.AssetCheckSeverity.WARN)
        return dg.MaterializeResult(data_version=dg.DataVersion("d1"), check_results=[found])

    checks = [dg.AssetCheckSpec("is_whole", asset=KEY)]
    outcome = dg.materialize([one_asset(body, dg.AssetSpec(KEY), resources=RESOURCES, check_specs=checks)])
    assert seen == [(KEY, "a resource")]
    assert outcome.asset_materializations_for_node("p__merged")[0].tags["dagster/data_version"] == "d1"
    assert [check.passed for check in outcome.get_asset_check_evaluations()] == [False]
