"""`pipeline.watch`: bring a pipeline up to date when what it reads has changed. And the look that starts nothing."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePath

import dagster as dg

from tunemill.pipelines.assets.jobs import bring_up_to_date_name
from tunemill.pipelines.assets.requests import OutdatedError, Served, request
from tunemill.pipelines.assets.sources import changed_observations, paths_of
from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.nodes import Pipeline
from tunemill.pipelines.graph.places import plain_name
from tunemill.pipelines.graph.source_versions import source_version
from tunemill.pipelines.graph.sweep import loaded_anew
from tunemill.pipelines.run.changes import Seen, look_at, notice, read_contents, seen_in
from tunemill.resources.canonical import SHORT, hash_document
from tunemill.resources.errors import StoreError
from tunemill.resources.identity import StatCache
from tunemill.stages.errors import UserError

# A source that is gone for a moment, or cannot be reached, is a reason to wait, and no error of the sensor.
NOT_NOW = (ConfigError, StoreError, UserError, OutdatedError, OSError)
OBSERVER = "tunemill_sources"
LOOK_SECONDS = 30
# Others than local files are asked for less often.
REMOTE_SECONDS = 600


def build_watchers(served: Served) -> list[dg.SensorDefinition]:
    """The sensor of a pipeline whose sources are watched."""
    pipeline = served.session.pipeline
    watch = pipeline.watch
    if watch is None:
        return []

    @dg.sensor(
        name=f"{pipeline.name}_watch",
        job_name=bring_up_to_date_name(pipeline.name),
        minimum_interval_seconds=watch.every,
        default_status=dg.DefaultSensorStatus[watch.default_status.upper()],
        description=f"Brings `{pipeline.name}` up to date when the contents of what it reads have changed, and have "
        f"stood still for {watch.settle} seconds. A file that was only touched starts nothing.",
    )
    def look(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return looked(served, watch.settle, context.cursor, context.instance, time.time())

    return [look]


def looked(
    served: Served, settle: float, cursor: str | None, instance: dg.DagsterInstance, now: float
) -> dg.SensorResult:
    """One look of a watcher: a run of what has changed, or why there is none. `now` is in seconds."""
    cache = served.session.store.stat_cache
    seen = seen_in(cursor)
    try:
        pipeline = loaded_anew(served.session.pipeline)
        look = look_at(pipeline, cache)
        noticed = notice(seen, look, now, settle, lambda: read_contents(pipeline, cache))
        if not noticed.changed:
            return dg.SensorResult(skip_reason=noticed.reason, cursor=noticed.seen.as_text())
        if seen is not None and look_at(pipeline, cache) != look:
            moving = replace(seen, moving=look, since=now)
            return dg.SensorResult(skip_reason="something changes while it is read", cursor=moving.as_text())
        paths = ", ".join(_changed_paths(pipeline, noticed.changed))
        asked = request(served, instance, _run_key(pipeline, seen, noticed.seen), "watch", paths)
        versions = _versions(pipeline, cache)
    except NOT_NOW as error:
        return dg.SensorResult(skip_reason=f"waiting: {error}", cursor=cursor)
    events = list(changed_observations(pipeline, versions, instance))
    if isinstance(asked, dg.SkipReason):
        return dg.SensorResult(
            skip_reason=f"{paths} changed; {asked.skip_message}",
            cursor=noticed.seen.as_text(),
            asset_events=events,
        )
    return dg.SensorResult(run_requests=[asked], cursor=noticed.seen.as_text(), asset_events=events)


def build_observer(
    pipelines: Sequence[tuple[Pipeline, StatCache]], label: str = ""
) -> list[dg.SensorDefinition]:
    """One sensor for all pipelines that shows changed sources as changed. It is on, and starts no run.

    Its name ends in the `label`, a path: folders of one project have a sensor each.
    """
    if not any(node.sources for pipeline, _ in pipelines for node in pipeline.nodes):
        return []

    @dg.sensor(
        name="__".join([OBSERVER, *map(plain_name, PurePath(label).parts)]),
        minimum_interval_seconds=LOOK_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Looks at the files, folders and repositories that the pipelines read, so that what is made from a "
        "changed one shows as stale. It starts no run.",
    )
    def look(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return observed(pipelines, context.cursor, context.instance, time.time())

    return [look]


def observed(
    pipelines: Sequence[tuple[Pipeline, StatCache]],
    cursor: str | None,
    instance: dg.DagsterInstance,
    now: float,
) -> dg.SensorResult:
    """One look at all sources: an event for each that holds something else than Dagster has seen last."""
    last, marks = _last_look(cursor)
    asks_remote = now - last >= REMOTE_SECONDS
    events: list[dg.AssetObservation] = []
    after: dict[str, str] = {}
    for pipeline, cache in pipelines:
        versions = _versions(pipeline, cache, remote=asks_remote)
        after[pipeline.name] = mark = hash_document(versions)[:SHORT]
        if marks.get(pipeline.name) != mark:
            events += changed_observations(pipeline, versions, instance)
    kept = json.dumps({"remote": now if asks_remote else last, "marks": after})
    reason = f"{len(events)} sources have changed" if events else "no source has changed"
    return dg.SensorResult(skip_reason=reason, cursor=kept, asset_events=events)


def _last_look(cursor: str | None) -> tuple[float, dict[str, str]]:
    """When others than local files were looked at last, and what each pipeline's sources held."""
    try:
        kept = json.loads(cursor or "")
        return float(kept["remote"]), dict(kept["marks"])
    except (ValueError, TypeError, KeyError):
        return 0.0, {}


def _versions(pipeline: Pipeline, cache: StatCache, *, remote: bool = True) -> dict[str, str]:
    """What the sources hold now, by node; without those that are not there, or cannot be reached."""
    found = {}
    for node in pipeline.nodes:
        is_remote = any("://" in name for names in node.sources.values() for name in names)
        if node.sources and (remote or not is_remote):
            try:
                found[node.name] = source_version(node, pipeline.document, cache)
            except NOT_NOW:
                continue
    return found


def _changed_paths(pipeline: Pipeline, nodes: Sequence[str]) -> list[str]:
    """The sources of these nodes, each once."""
    folder = pipeline.document.folder
    return list(dict.fromkeys(path for name in nodes for path in paths_of(pipeline.node(name), folder)))


def _run_key(pipeline: Pipeline, before: Seen | None, after: Seen) -> str:
    """The same for the same change, so that one that is noticed twice is run once; another for each later change."""
    held = {} if before is None else dict(before.contents)
    change = hash_document({"before": held, "after": dict(after.contents), "since": str(after.since)})
    return f"{pipeline.name}-{change[:SHORT]}"
