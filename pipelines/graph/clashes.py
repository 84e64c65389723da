"""Why pipelines that are right one by one cannot all be shown in one Dagster."""

import graphlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunemill.pipelines.config.key_paths import KeyPath
from tunemill.pipelines.config.slices import ASSET_SCHEME
from tunemill.pipelines.graph.keys import upstream_of
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.pipelines.graph.source_versions import source_name


@dataclass(frozen=True)
class Clash:
    """What is wrong with a pipeline beside the others, and the key that would mend it."""

    place: KeyPath
    message: str


def clashes(pipelines: Mapping[Path, Pipeline]) -> dict[Path, Clash]:
    """The pipelines of a folder that cannot be shown beside the others. Of two with one name the first counts."""
    kept: dict[Path, Pipeline] = {}
    found: dict[Path, Clash] = {}
    names: dict[str, Path] = {}
    steps: dict[str, Path] = {}
    for path, pipeline in pipelines.items():
        clash = _name_clash(pipeline, names, steps)
        if clash is None:
            kept[path] = pipeline
            names[pipeline.name] = path
            steps |= dict.fromkeys(step_names(pipeline), path)
        else:
            found[path] = clash
    return found | _circles(kept)


def step_names(pipeline: Pipeline) -> Iterator[str]:
    """What Dagster calls the steps: the parts of their assets' keys, joined."""
    for node in pipeline.nodes:
        yield f"{pipeline.name}__{node.name}"
        if node.sources:
            yield f"{pipeline.name}__{source_name(node)}"


def _name_clash(pipeline: Pipeline, names: Mapping[str, Path], steps: Mapping[str, Path]) -> Clash | None:
    """Which other pipeline has taken this one's name, or that of one of its steps; `names` and `steps` say whose."""
    if (file := names.get(pipeline.name)) is not None:
        message = f"the pipeline's name {pipeline.name!r} is taken by {file}; give it another `pipeline.name`"
        return Clash(("pipeline", "name"), message)
    if shared := sorted(steps.keys() & set(step_names(pipeline))):
        taken = f"its step {shared[0]!r} has the name of one of {steps[shared[0]]} in Dagster"
        return Clash(("pipeline", "name"), f"{taken}; give it another `pipeline.name`")
    return None


def _circles(pipelines: Mapping[Path, Pipeline]) -> dict[Path, Clash]:
    """The pipelines that wait for each other through `asset://` names."""
    left = dict(pipelines)
    found: dict[Path, Clash] = {}
    while circle := _circle(left):
        for path in circle:
            others = ", ".join(str(other) for other in circle if other != path)
            message = f"it waits for results of {others}, and they for its own; cut the circle"
            found[path] = Clash(("base_model",), message)
            del left[path]
    return found


def _circle(pipelines: Mapping[Path, Pipeline]) -> Sequence[Path]:
    waits = {
        _full_name(pipeline, node.name): (path, _upstream(pipeline, node))
        for path, pipeline in pipelines.items()
        for node in pipeline.nodes
    }
    graph = {name: upstream for name, (_, upstream) in waits.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(dict.fromkeys(waits[name][0] for name in error.args[1]))
    return []


def _upstream(pipeline: Pipeline, node: Node) -> list[str]:
    return [_full_name(pipeline, up) for up in upstream_of(node)]


def _full_name(pipeline: Pipeline, node: str) -> str:
    """`<pipeline>/<node>`; an `asset://` name is already whole."""
    return node.removeprefix(ASSET_SCHEME) if node.startswith(ASSET_SCHEME) else f"{pipeline.name}/{node}"
