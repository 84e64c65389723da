"""One Dagster run in this process, over a selection of a pipeline's nodes."""

import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from typing import Any, TextIO, cast

import dagster as dg
from sqlalchemy.exc import DBAPIError

from tunemill.pipelines.assets.assets import asset_key, build_assets
from tunemill.pipelines.assets.gate_checks import build_checks
from tunemill.pipelines.assets.instance import open_instance
from tunemill.pipelines.assets.jobs import bring_up_to_date_name
from tunemill.pipelines.assets.run_process import process_tag
from tunemill.pipelines.graph.plan import Planned
from tunemill.pipelines.run.finished import Finished, State
from tunemill.pipelines.run.materialize import Session
from tunemill.pipelines.run.record import done_of, forget_old, record
from tunemill.resources.storage_errors import DATABASES_SAY, one_storage_error

# Dagster's own console lines would drown ours; they are all in the instance.
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

# How Dagster begins what it says of each event that its database has not taken.
LOST_EVENT = "Exception while writing logger call to event log"


class WithoutLostEvents:
    """A stream without what Dagster says, event by event, of a disk that is full: the run ends with one error of it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Pass the text on, unless it is of a lost event and the disk is why."""
        said = text.lower()
        if text.startswith(LOST_EVENT) and any(words in said for words in DATABASES_SAY):
            return len(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def materialize_nodes(session: Session, plan: Sequence[Planned], nodes: Sequence[str]) -> list[Finished]:
    """Materialize the nodes and say what became of every node of the plan."""
    pipeline, store, observe = session.pipeline, session.store, session.observe
    failures: dict[str, str] = {}

    def watch(node: str, event: dict[str, Any]) -> None:
        if event["type"] == "failure":
            failures[node] = event["message"]
        observe(node, event)

    session = replace(session, observe=watch)
    checks = build_checks(session)
    # Dagster's own database may meet the full disk first.
    with (
        one_storage_error(store.root, DBAPIError),
        open_instance(store.root) as instance,
        redirect_stderr(cast("TextIO", WithoutLostEvents(sys.stderr))),
    ):
        # Also the gates of evaluations that are in place: what follows them may not be.
        selection = dg.AssetSelection.assets(*(asset_key(pipeline.name, node) for node in nodes))
        job = dg.define_asset_job(
            bring_up_to_date_name(pipeline.name), selection | dg.AssetSelection.checks(*checks)
        )
        definitions = dg.Definitions(build_assets(session), asset_checks=checks, jobs=[job])
        outcome = definitions.resolve_job_def(job.name).execute_in_process(
            instance=instance,
            raise_on_error=False,
            run_config=QUIET,
            tags={"tunemill/pipeline": pipeline.name, **process_tag()},
        )
    # Whatever an asset did not say itself (a mistake of ours) is in Dagster's own events.
    steps = {event.step_key: event for event in outcome.all_events if event.is_step_failure}
    for node in nodes:
        event = steps.get("__".join(asset_key(pipeline.name, node).path))
        error = event.step_failure_data.error if event is not None else None
        if error is not None and error.cls_name == dg.DagsterExecutionInterruptedError.__name__:
            raise KeyboardInterrupt
        if error is not None:
            failures.setdefault(node, error.to_string())
    finished = [_finished(item, session, outcome.run_id, item.node.name in nodes, failures) for item in plan]
    record(store, pipeline.name, outcome.run_id, {item.node: done_of(item) for item in finished})
    forget_old(store, pipeline.name)
    return finished


def _finished(
    item: Planned, session: Session, run_id: str, selected: bool, failures: dict[str, str]
) -> Finished:
    node, stage = item.node.name, item.node.stage.name
    result, message = session.results.get((run_id, node)), failures.get(node)
    if message is not None:
        return Finished(node, stage, "failed", item.reasons, 0.0, None, item.key, message)
    if result is not None:
        state: State = result.state
        own, why, seconds = result.published, result.reasons, result.seconds
        return Finished(node, stage, state, why, seconds, own, own.key, note=result.note, pin=result.pin)
    if item.left_alone:
        return Finished(node, stage, "left alone", (), 0.0, None, None)
    if not selected:
        in_place: State = "cached" if item.pin is None else "pinned"
        return Finished(node, stage, in_place, (), 0.0, item.cached, item.key, pin=item.pin)
    return Finished(node, stage, "skipped", item.reasons, 0.0, None, item.key)
