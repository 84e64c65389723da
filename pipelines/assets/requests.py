"""What a schedule or a sensor asks for: a run of what is not in place, or a reason why there is none."""

from collections.abc import Collection
from dataclasses import dataclass

import dagster as dg

from tunemill.pipelines.assets.assets import asset_key
from tunemill.pipelines.assets.freshness import up_to_date
from tunemill.pipelines.assets.jobs import ASKED_BY, PIPELINE
from tunemill.pipelines.assets.run import refuse_untracked
from tunemill.pipelines.graph.keys import upstream_of
from tunemill.pipelines.graph.nodes import Pipeline
from tunemill.pipelines.graph.plan import make_plan, not_in_place
from tunemill.pipelines.graph.source_versions import asked_for
from tunemill.pipelines.graph.sweep import loaded_anew
from tunemill.pipelines.run.materialize import Session

ASKS_FOR = "tunemill/asks_for"
CHANGED = "tunemill/changed"
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


class OutdatedError(ValueError):
    """The definitions that are loaded are not those of the YAML."""


@dataclass(frozen=True)
class Served:
    """A pipeline as it is served, with all checks of its assets, some of them gates of what comes after."""

    session: Session
    checks: Collection[dg.AssetCheckKey]
    gates: Collection[dg.AssetCheckKey]


def request(
    served: Served, instance: dg.DagsterInstance, run_key: str | None, asked_by: str, changed: str = ""
) -> dg.RunRequest | dg.SkipReason:
    """A run of what is not in place now, as the YAML is now.

    Raises ConfigError and StoreError as a plan does, and OutdatedError where the YAML has other nodes than are served.
    """
    loaded, store = served.session.pipeline, served.session.store
    pipeline = loaded_anew(loaded)
    if shape(pipeline) != shape(loaded):
        raise OutdatedError(
            f"{loaded.document.path.name} has other nodes or gates than when it was loaded; reload the definitions "
            f"(Deployment, Reload)"
        )
    plan = make_plan(pipeline, store)
    refuse_untracked(pipeline, plan)
    names = not_in_place(plan)
    if not names:
        if pipeline.schedule is not None:
            instance.report_runless_asset_event(up_to_date(pipeline))
        return dg.SkipReason(f"nothing to do: {len(plan)} nodes in place")
    asks = asked_for(pipeline, store)
    if (busy := _busy_with(asks, pipeline, instance)) is not None:
        return dg.SkipReason(f"run {busy} is at it")
    keys = [asset_key(pipeline.name, name) for name in names]
    return dg.RunRequest(
        run_key=run_key,
        asset_selection=keys,
        # Also the gates of evaluations that are in place: what follows them may not be.
        asset_check_keys=[key for key in served.checks if key.asset_key in keys or key in served.gates],
        tags={
            PIPELINE: pipeline.name,
            ASKED_BY: asked_by,
            ASKS_FOR: asks,
            **({CHANGED: changed} if changed else {}),
        },
    )


def shape(pipeline: Pipeline) -> object:
    """What of a pipeline Dagster has learnt when it loaded it."""
    nodes = [(node.name, node.stage.name, upstream_of(node), bool(node.sources)) for node in pipeline.nodes]
    return pipeline.name, nodes, pipeline.gates


def _busy_with(asks: str, pipeline: Pipeline, instance: dg.DagsterInstance) -> str | None:
    """The run that has been asked for the same, and is not finished."""
    wanted = dg.RunsFilter(tags={PIPELINE: pipeline.name, ASKS_FOR: asks}, statuses=UNFINISHED)
    found = instance.get_run_records(wanted, limit=1)
    return found[0].dagster_run.run_id if found else None
