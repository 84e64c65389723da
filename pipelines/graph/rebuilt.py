"""The graph that made an artifact, rebuilt from the lineage inside it: no YAML is needed, and no store."""

import glob
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tunemill.pipelines.config.document import Document
from tunemill.pipelines.graph.keys import comparable, identify_source, source_settings
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.resources.errors import StoreError
from tunemill.resources.identity import StatCache
from tunemill.resources.protocols import ADOPTED, without_credentials
from tunemill.stages import artifacts
from tunemill.stages.declaration import RuntimeMark, SourceMark, Stage, StageConfig, listed
from tunemill.stages.named import stage_named

PIPELINE = "reproduced"
# So many folders below those that are given a file is looked for by its name.
DEEPEST = 3


class MissingError(StoreError):
    """Something that the lineage names, or that it should hold, is not there: nothing can be said of the result."""


@dataclass(frozen=True)
class Rebuilt:
    """An artifact that is to be made again, by what its lineage says of it. What was adopted has no node."""

    name: str
    item: Mapping[str, Any]
    node: Node | None

    @property
    def full_name(self) -> str:
        return str(self.item["node"])


def rebuilt(lineage: Mapping[str, Any], files: Sequence[Path] = ()) -> list[Rebuilt]:
    """Everything behind an artifact and itself, in an order in which it can be made. Raises MissingError.

    Local files and folders that are not where they were are looked for by their names in the folders `files`.
    """
    ordered = list(_ordered(lineage))
    names = dict(zip((item["key"] for item in ordered), _names(ordered), strict=True))
    return [_rebuilt(item, names, files) for item in ordered]


def pipeline_of(found: Sequence[Rebuilt], place: Path) -> Pipeline:
    """The pipeline of the nodes; `place` is where the lineage was read."""
    document = Document(place, {}, {}, {}, {})
    return Pipeline(PIPELINE, document, tuple(item.node for item in found if item.node), None, None)


def sources_of(found: Rebuilt) -> dict[str, list[dict[str, Any]]]:
    """What each source was, by its field, with the path at which it is now."""
    recorded: dict[str, list[dict[str, Any]]] = dict(found.item["sources"])
    if found.node is None:
        return recorded
    now = found.node.sources
    return {
        field: [
            {**source, "path": path}
            for source, path in zip(sources, now.get(field, [item["path"] for item in sources]), strict=True)
        ]
        for field, sources in recorded.items()
    }


def source_now(found: Rebuilt, field: str, path: str, cache: StatCache) -> dict[str, str]:
    """The identity of a source now. Raises StoreError where it is not there."""
    if found.node is None:
        return identify_source(path, None, cache)
    revision, token, counting = source_settings(found.node, field)
    return identify_source(path, revision, cache, token, counting)


def is_the_same(before: Mapping[str, Any], now: Mapping[str, str]) -> bool:
    """Whether a source holds what it held, as far as identities tell."""
    recorded = {name: value for name, value in before.items() if name != "path"}
    one, other = (comparable({"": [identity]}) for identity in (recorded, now))
    return one == other


def _ordered(lineage: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What an artifact was made from, each once and before what is made from it, and the artifact itself."""
    ancestors, done, pending = lineage["ancestors"], set[str](), [(lineage, False)]
    while pending:
        item, inputs_are_done = pending.pop()
        if item["key"] in done:
            continue
        if inputs_are_done:
            done.add(item["key"])
            yield item
            continue
        if lacking := [
            fact for fact in ("config", "sources", "digest") if fact in item.get("not_recorded", ())
        ]:
            raise MissingError(
                f"the lineage does not say what {item['node']} was made with ({', '.join(lacking)}), because an older "
                f"version wrote it"
            )
        pending.append((item, True))
        for edge in reversed(list(_edges(item))):
            if edge["key"] not in ancestors:
                raise MissingError(
                    f"the lineage says nothing of {edge['node']}, of which {item['node']} was made"
                )
            pending.append((ancestors[edge["key"]], False))


def _edges(item: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The inputs of an artifact; what was adopted is copied again."""
    if item["stage"] != ADOPTED:
        yield from (edge for edges in item["inputs"].values() for edge in edges)


def _names(ordered: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A name for each: the node's own, with the pipeline's where several have it, numbered where that is not enough."""
    plain = [item["node"].partition("/")[2] for item in ordered]
    taken = set[str]()
    for item, name in zip(ordered, plain, strict=True):
        wanted = name if plain.count(name) == 1 else item["node"].replace("/", "_")
        number = 2
        unique = wanted
        while unique in taken:
            unique, number = f"{wanted}_{number}", number + 1
        taken.add(unique)
        yield unique


def _rebuilt(item: Mapping[str, Any], names: Mapping[str, str], files: Sequence[Path]) -> Rebuilt:
    name = names[item["key"]]
    if item["stage"] == ADOPTED:
        folder = [{**source, "path": _found(source["path"], files)} for source in item["sources"]["folder"]]
        return Rebuilt(name, {**item, "sources": {"folder": folder}}, None)
    stage = _stage(item)
    inputs = {
        field: tuple(names[edge["key"]] for edge in edges) for field, edges in item["inputs"].items() if edges
    }
    config = _config(item, stage, inputs, files)
    places = {field: (field,) for field in type(config).model_fields}
    return Rebuilt(name, item, Node(name, stage, config, inputs, places))


def _stage(item: Mapping[str, Any]) -> Stage:
    """The stage as the graph had it: what it makes and which libraries count depends on the place of a node."""
    stage = stage_named(item["stage"])
    output = getattr(artifacts, item["artifact"], None)
    if stage is None or output is None:
        raise MissingError(
            f"{item['node']} was made by the stage {item['stage']}, which this version does not have"
        )
    return replace(stage, output=output, libraries=tuple(item["libraries"]))


def _config(
    item: Mapping[str, Any], stage: Stage, inputs: Mapping[str, Any], files: Sequence[Path]
) -> StageConfig:
    """The slice of the node as it was, with sources where they are now and repositories at their commits."""
    defaults = stage.config.defaults()
    # An older version has not recorded what was given, and defaults are not given.
    given = item.get("given") or {
        field: value
        for field, value in item["config"].items()
        if field not in defaults or defaults[field] != value
    }
    values = {**given, **_commits(item, stage)}
    for field in stage.config.sources() & values.keys():
        moved = [_found(path, files) for path in listed(values[field])]
        values[field] = moved[0] if isinstance(values[field], str) else moved
    try:
        config = stage.config.model_validate(values)
        looked_at = {
            name for name, declared in stage.inputs.items() if declared.runtime and name not in inputs
        }
        if looked_at - config.unused_inputs():
            # It looked at rows that are no part of its making: so nothing is asked for that would look at them.
            runtime = set(stage.config.marked(RuntimeMark)) - config.deciding()
            kept = {*stage.config.sources(), *_commits(item, stage)}
            values = {name: value for name, value in values.items() if name not in runtime or name in kept}
            config = stage.config.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise MissingError(
            f"{item['node']}: this version does not read its settings any more: {first['msg']}"
        ) from error
    return config


def _commits(item: Mapping[str, Any], stage: Stage) -> dict[str, str]:
    """For repositories of the Hub the commit in place of a branch or tag."""
    found = {}
    for field, mark in stage.config.marked(SourceMark).items():
        commits = [source["commit"] for source in item["sources"].get(field, ()) if source.get("commit")]
        if mark.revision is not None and commits:
            found[mark.revision] = commits[0]
    return found


def _found(path: str, files: Sequence[Path]) -> str:
    """Where a local file or folder is now: at its path, or under as much of it as is in one of the folders `files`.

    What was published may tell no more than a name: that is looked for a few folders deep too.
    """
    if "://" in path or not Path(path).is_absolute() or Path(path).exists():
        return path
    parts = Path(path).parts[1:]
    tails = [Path(*parts[start:]) for start in range(len(parts))]
    there = (folder / tail for tail in tails for folder in files if (folder / tail).exists())
    deeper = (
        found
        for depth in range(1, DEEPEST + 1)
        for folder in files
        for found in sorted(folder.glob(f"{'*/' * depth}{glob.escape(parts[-1])}"))
    )
    return str(next(itertools.chain(there, deeper), path))


def described(source: Mapping[str, Any]) -> str:
    """A source as its lineage names it, without who one is."""
    return without_credentials(str(source["path"]))
