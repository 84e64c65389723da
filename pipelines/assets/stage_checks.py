"""The checks of a stage as Dagster's asset checks: reported with each materialization, also of what was cached."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from tunemill.pipelines.graph.result_checks import Checked, checks_of
from tunemill.stages.declaration import Stage

SEVERITIES = {"warning": dg.AssetCheckSeverity.WARN, "error": dg.AssetCheckSeverity.ERROR}


def check_specs(key: dg.AssetKey, stage: Stage) -> list[dg.AssetCheckSpec]:
    """What is asked of the asset. The asset itself answers: a step of its own would cost a run half a second each."""
    return [dg.AssetCheckSpec(check.name, asset=key, description=check.question) for check in stage.checks]


def check_results(
    key: dg.AssetKey, node: str, stage: Stage, metrics: Mapping[str, Any]
) -> Sequence[dg.AssetCheckResult]:
    """What became of each check, by the figures of the artifact."""
    return [_result(key, one) for one in checks_of(node, stage, metrics)]


def _result(key: dg.AssetKey, one: Checked) -> dg.AssetCheckResult:
    # Dagster knows no third outcome: what is not known has not failed.
    return dg.AssetCheckResult(
        passed=one.state != "failed",
        asset_key=key,
        check_name=one.check,
        severity=SEVERITIES[one.severity],
        description=one.text
        if one.advice is None
        else f"{one.text}. {one.advice[0].upper()}{one.advice[1:]}.",
        metadata={"state": one.state} | ({} if one.advice is None else {"what to do": one.advice}),
    )
