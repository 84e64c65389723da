"""Nodes as Dagster assets: find inputs, ask the store, launch, report. No work of a stage is done here."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from tunemill.pipelines.assets.again import with_refresh
from tunemill.pipelines.assets.clear_error import failure
from tunemill.pipelines.assets.descriptions import description
from tunemill.pipelines.assets.freshness import up_to_date
from tunemill.pipelines.assets.heard import Heard
from tunemill.pipelines.assets.lineage_metadata import tags_of
from tunemill.pipelines.assets.metadata import materialization_metadata
from tunemill.pipelines.assets.one_asset import Body, one_asset
from tunemill.pipelines.assets.run_process import note_process
from tunemill.pipelines.assets.sources import note_what_was_read, source_key
from tunemill.pipelines.assets.stage_checks import check_results, check_specs
from tunemill.pipelines.assets.trackers import FROM_YAML, RESOURCE
from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.config.slices import ASSET_SCHEME
from tunemill.pipelines.graph.code_version import code_versions
from tunemill.pipelines.graph.evaluation_nodes import EVALUATES, evaluation_nodes
from tunemill.pipelines.graph.keys import looked_at_by, upstream_of, with_upstream
from tunemill.pipelines.graph.nodes import Node
from tunemill.pipelines.graph.plan import make_plan, not_in_place
from tunemill.pipelines.report.write import keep_report
from tunemill.pipelines.run.lineage_events import LineageEvents
from tunemill.pipelines.run.look import Look
from tunemill.pipelines.run.materialize import Result, Session, leave_alone, materialize
from tunemill.pipelines.run.record import Done, done_from, forget_old, record, report_place
from tunemill.resources.errors import LaunchError, StoreError
from tunemill.resources.redaction import hidden_in_errors, redacted, secrets_in
from tunemill.resources.storage_errors import one_storage_error
from tunemill.stages.errors import UserError

# Another process may give back the memory that this one lacked.
RETRY_SECONDS = 5.0
LEFT_ALONE = "left alone: only pinned nodes would need it. To bring it up to date, materialize it by itself"
AGAIN = "\nit is tried again in a moment (pipeline.retries)"
EXPECTED = (ConfigError, LaunchError, StoreError, UserError)


def build_assets(
    session: Session, trackers: dg.ResourceDefinition = FROM_YAML, look: Look | None = None
) -> list[dg.AssetsDefinition]:
    """One asset for each node of the pipeline. `trackers` is the resource that their figures go through.

    With a `look` at the pipeline their descriptions say what stands of them.
    """
    nodes = session.pipeline.nodes
    early = with_upstream(session.pipeline, [name for node in nodes for name in looked_at_by(node)])
    versions = code_versions(session.pipeline, session.store)
    events = LineageEvents(session.pipeline, session.store)
    evaluating = set(evaluation_nodes(session.pipeline))
    return [
        _asset(
            session,
            node,
            _spec(
                session, node, versions[node.name], look, {EVALUATES: ""} if node.name in evaluating else {}
            ),
            trackers,
            events,
            early=node.name in early,
        )
        for node in nodes
    ]


def asset_key(pipeline: str, node: str) -> dg.AssetKey:
    """`[pipeline, node]`; an `asset://` name is already whole."""
    if node.startswith(ASSET_SCHEME):
        return dg.AssetKey(node.removeprefix(ASSET_SCHEME).split("/"))
    return dg.AssetKey([pipeline, node])


def _spec(
    session: Session, node: Node, version: str, look: Look | None, tags: Mapping[str, str]
) -> dg.AssetSpec:
    pipeline = session.pipeline
    name = pipeline.name
    return dg.AssetSpec(
        key=asset_key(name, node.name),
        deps=[
            *(asset_key(name, up) for up in upstream_of(node)),
            *([source_key(pipeline, node)] if node.sources else []),
        ],
        group_name=name,
        description=node.stage.description if look is None else description(look, node),
        code_version=version,
        kinds={node.stage.name, *node.stage.kinds},
        owners=pipeline.owners,
        tags={**pipeline.tags, **tags},
    )


def _asset(
    session: Session,
    node: Node,
    spec: dg.AssetSpec,
    trackers: dg.ResourceDefinition,
    events: LineageEvents,
    *,
    early: bool,
) -> dg.AssetsDefinition:
    return one_asset(
        _body(session, node, spec.key, events),
        spec,
        resources={RESOURCE: trackers},
        # What others look at goes before them, so that a run shows it as a step of its own; nothing waits for it.
        op_tags={"dagster/priority": "1"} if early else None,
        check_specs=check_specs(spec.key, node.stage),
        retry_policy=_retrying(session.pipeline.limits.retries),
    )


def _body(session: Session, node: Node, key: dg.AssetKey, events: LineageEvents) -> Body:
    """What the asset of a node does."""
    name, retries = session.pipeline.name, session.pipeline.limits.retries

    def asset(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        secrets = secrets_in(node.config.model_dump(mode="json"), os.environ)
        # Also what is computed ahead of its turn takes of the run's time.
        session.begun.setdefault(context.run.run_id, time.monotonic())
        note = Heard(context, key).hear
        note_process(context)

        def observe(event: dict[str, Any]) -> None:
            session.observe(node.name, event)
            note(event)

        def say(message: str) -> None:
            observe({"type": "log", "message": message})

        def left_alone() -> Result | None:
            selected = context.job_def.asset_layer.executable_asset_keys
            result = leave_alone(session, node, {key.path[-1] for key in selected if key.path[0] == name})
            if result is not None:
                say(LEFT_ALONE)
            return result

        try:
            with (
                hidden_in_errors(secrets, *EXPECTED),
                one_storage_error(session.store.root),
                getattr(context.resources, RESOURCE).watch(
                    session.pipeline, node, session.store.root, say
                ) as tracked,
            ):

                def hear(event: dict[str, Any]) -> None:
                    observe(event)
                    if tracked is not None:
                        tracked.hear(event)

                result = (
                    left_alone()
                    or (session.ahead(node.name, note) if context.retry_number == 0 else None)
                    or materialize(with_refresh(session, node, context), node, context.run.run_id, hear)
                )
                if tracked is not None:
                    tracked.end(result.published)
                metadata = materialization_metadata(session.pipeline, node, result)
                tags = tags_of(result.published) | note_what_was_read(session, node, result, context)
        except EXPECTED as error:
            message = redacted(str(error), secrets)
            again = getattr(error, "crashed", False) and context.retry_number < retries
            observe({"type": "log" if again else "failure", "message": message + (AGAIN if again else "")})
            if not again:
                _end(session, context, node, Done("failed", 0.0, message=message), events, say)
            # Dagster keeps what caused it too, and there may be whole URLs in that.
            raise failure(message, again=again) from None
        session.results[context.run.run_id, node.name] = result
        _end(session, context, node, done_from(result), events, say)
        report = report_place(session.store, name, context.run.run_id)
        metadata["report"] = dg.MetadataValue.path(str(report))
        # Metadata of the result itself would stand on the run's page twice.
        context.add_asset_metadata(metadata, asset_key=key)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(result.published.digest),
            tags=tags,
            check_results=check_results(key, node.name, node.stage, result.published.manifest["metrics"]),
        )

    return asset


def _retrying(retries: int) -> dg.RetryPolicy | None:
    """Dagster's policy; what is no crash says itself that it is not tried again."""
    if not retries:
        return None
    return dg.RetryPolicy(max_retries=retries, delay=RETRY_SECONDS, backoff=dg.Backoff.EXPONENTIAL)


def _end(
    session: Session,
    context: dg.AssetExecutionContext,
    node: Node,
    done: Done,
    events: LineageEvents,
    say: Callable[[str], None],
) -> None:
    """Tell what became of a node, and record it."""
    events.tell(node, context.run.run_id, done, say)
    if _record(session, context, node, done):
        events.finish(say)


def _record(session: Session, context: dg.AssetExecutionContext, node: Node, done: Done) -> bool:
    """Add a node to the record of the run; write the report when the run ends, and say whether it does.

    It ends with its last node, or a failure.

    The command line writes it itself, when it knows of the nodes too that were in place.
    """
    own = session.pipeline
    found = record(session.store, own.name, context.run.run_id, {node.name: done})
    selected = {asset_key(own.name, one.name): one.name for one in own.nodes}
    # A run from the failure of another one has all of its assets, and some of its steps.
    steps = context.run.step_keys_to_execute
    wanted = {
        selected[key]
        for key in context.job_def.asset_layer.executable_asset_keys
        if key in selected and (steps is None or key.to_python_identifier() in steps)
    }
    is_last = wanted <= set(found.nodes)
    if own.schedule is not None and is_last and _all_in_place(session):
        context.log_event(up_to_date(own))
    has_ended = done.state == "failed" or is_last
    if not session.asked_for and has_ended:
        keep_report(own, session.store)
        forget_old(session.store, own.name)
    return has_ended


def _all_in_place(session: Session) -> bool:
    """Whether a run would have nothing to do now."""
    try:
        return not not_in_place(make_plan(session.pipeline, session.store))
    except (ConfigError, StoreError, UserError):
        return False
