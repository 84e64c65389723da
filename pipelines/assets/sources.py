"""What lies outside and is read, as assets that are observed: a file, a folder, a repository, beside the nodes."""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from tunemill.pipelines.assets.clear_error import ClearError
from tunemill.pipelines.assets.one_asset import one_source
from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.pipelines.graph.source_versions import source_name, source_version, version_in
from tunemill.pipelines.run.materialize import Result, Session
from tunemill.resources.errors import StoreError
from tunemill.resources.protocols import without_credentials

# How Dagster writes down which data version of an input a materialization was made from.
INPUT_VERSION = "dagster/input_data_version"
DATA_VERSION = "dagster/data_version"
SHOWN = 3


def build_sources(session: Session) -> list[dg.AssetsDefinition]:
    """One observable asset for each node that reads something from outside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        return [_source(session, node) for node in session.pipeline.nodes if node.sources]


def source_key(pipeline: Pipeline, node: Node) -> dg.AssetKey:
    """The asset of what a node reads from outside."""
    return dg.AssetKey([pipeline.name, source_name(node)])


def paths_of(node: Node, folder: Path) -> list[str]:
    """What a node reads from outside, as a person would write it: relative to the YAML where it lies below it."""
    return list(dict.fromkeys(_shown(name, folder) for names in node.sources.values() for name in names))


def observation(pipeline: Pipeline, node: Node, version: str) -> dg.AssetObservation:
    """The event that says what the sources of a node hold."""
    return dg.AssetObservation(
        asset_key=source_key(pipeline, node),
        metadata={"reads": _words(paths_of(node, pipeline.document.folder))},
        tags={DATA_VERSION: version},
    )


def changed_observations(
    pipeline: Pipeline, versions: Mapping[str, str], instance: dg.DagsterInstance
) -> Iterator[dg.AssetObservation]:
    """The events of nodes whose sources hold something else than Dagster saw last; `versions` by node."""
    for node in pipeline.nodes:
        if node.name in versions and _last_seen(pipeline, node, instance) != versions[node.name]:
            yield observation(pipeline, node, versions[node.name])


def note_what_was_read(
    session: Session, node: Node, result: Result, context: dg.AssetExecutionContext
) -> dict[str, str]:
    """The tags that name what the node's artifact was made from, and an event if that is news.

    Dagster would take what was observed last, which is older or newer than what was read. What is kept whatever the
    sources hold is compared with them as they are now.
    """
    if not node.sources or result.state in ("pinned", "left alone"):
        return {}
    pipeline = session.pipeline
    read = version_in(result.published, session.store)
    try:
        now = source_version(node, pipeline.document, session.store.stat_cache)
    except (ConfigError, StoreError):
        # It was there a moment ago, and will be looked at again.
        now = read or ""
    for event in changed_observations(pipeline, {node.name: now}, context.instance):
        context.log_event(event)
    key = source_key(pipeline, node).to_user_string()
    return {} if read is None else {f"{INPUT_VERSION}/{key}": read}


def _source(session: Session, node: Node) -> dg.AssetsDefinition:
    pipeline = session.pipeline
    paths = paths_of(node, pipeline.document.folder)

    spec = dg.AssetSpec(
        source_key(pipeline, node),
        group_name=pipeline.name,
        description=f"What `{node.name}` reads: {_words(paths)}. Its data version moves with the contents, not with "
        f"the time of a file.",
        metadata={"reads": _words(paths)},
        kinds={"source"},
    )

    def observe() -> Iterator[dg.ObserveResult]:
        try:
            version = source_version(node, pipeline.document, session.store.stat_cache)
        except (ConfigError, StoreError) as error:
            raise ClearError(str(error)) from None
        yield dg.ObserveResult(asset_key=spec.key, data_version=dg.DataVersion(version))

    return one_source(observe, spec)


def _last_seen(pipeline: Pipeline, node: Node, instance: dg.DagsterInstance) -> str | None:
    records = instance.fetch_observations(source_key(pipeline, node), limit=1).records
    event: Any = records[0].asset_observation if records else None
    return None if event is None else event.tags.get(DATA_VERSION)


def _shown(name: str, folder: Path) -> str:
    if "://" in name:
        return without_credentials(name)
    path = Path(name)
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else name


def _words(paths: list[str]) -> str:
    more = len(paths) - SHOWN
    return ", ".join(f"`{path}`" for path in paths[:SHOWN]) + (f" and {more} more" if more > 0 else "")
