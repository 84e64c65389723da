"""Gates as Dagster's asset checks on the evaluations that they are about: what follows waits for them."""

import itertools
from collections.abc import Iterator

import dagster as dg

from tunemill.pipelines.assets.assets import asset_key
from tunemill.pipelines.config.slices import ASSET_SCHEME
from tunemill.pipelines.graph.gates import outcomes
from tunemill.pipelines.graph.places import plain_name
from tunemill.pipelines.graph.plan import upstream_asset
from tunemill.pipelines.run.materialize import Session
from tunemill.resources.store import Published
from tunemill.stages.evaluation.gate import Gate


def build_checks(session: Session) -> list[dg.AssetChecksDefinition]:
    """One blocking check for each gate of the pipeline."""
    names: set[str] = set()
    return [
        _check(session, gate, _own_name(gate, names), number)
        for number, gate in enumerate(session.pipeline.gates)
    ]


def _own_name(gate: Gate, taken: set[str]) -> str:
    """What a check is called: not by its numbers, so that it keeps its history when they are edited."""
    asked = [name for name in ("min", "max") if getattr(gate, name) is not None]
    asked += [] if gate.max_drop_from is None else [f"beside_{gate.max_drop_from}"]
    name = plain_name("_".join([gate.metric, *asked]))
    numbered = (f"{name}_{count}" for count in itertools.count(2))
    free = next(one for one in itertools.chain((name,), numbered) if f"{gate.node} {one}" not in taken)
    taken.add(f"{gate.node} {free}")
    return free


def _check(session: Session, gate: Gate, name: str, number: int) -> dg.AssetChecksDefinition:
    pipeline = session.pipeline.name

    @dg.asset_check(
        asset=asset_key(pipeline, gate.node),
        name=name,
        blocking=True,
        additional_deps=[asset_key(pipeline, node) for node in gate.nodes if node != gate.node],
        description=gate.words,
    )
    def check(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        found = outcomes(session.pipeline, dict(_artifacts(session, gate, context.run.run_id)))[number]
        return dg.AssetCheckResult(
            passed=found.state == "passed",
            severity=dg.AssetCheckSeverity.ERROR if found.blocks else dg.AssetCheckSeverity.WARN,
            description=f"{found.state}: {found.text}",
            metadata={
                "outcome": found.state,
                **{name: value for name, value in found.as_json()["numbers"].items() if value is not None},
            },
        )

    return check


def _artifacts(session: Session, gate: Gate, run_id: str) -> Iterator[tuple[str, Published]]:
    """The evaluations of a gate: from this run, or else what their nodes point to now."""
    for node in gate.nodes:
        result = session.results.get((run_id, node))
        found = (
            upstream_asset(f"{ASSET_SCHEME}{session.pipeline.name}/{node}", session.store)
            if result is None
            else result.published
        )
        if isinstance(found, Published):
            yield node, found
