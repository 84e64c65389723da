"""Why pipelines that are right one by one cannot all be shown in one Dagster."""

import graphlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tunemill.pipelines.assets.assets import asset_key
from tunemill.pipelines.graph.keys import upstream_of
from tunemill.pipelines.graph.nodes import Node, Pipeline


def name_clash(pipeline: Pipeline, path: Path, others: Mapping[Path, Pipeline]) -> str | None:
    """Which of the other pipelines has taken this one's name, or that of one of its steps."""
    steps = set(step_names(pipeline))
    for file, other in others.items():
        if other.name == pipeline.name:
            return f"{path}: the pipeline's name {pipeline.name!r} is taken by {file}; give it another `pipeline.name`"
        if shared := sorted(steps & set(step_names(other))):
            return (
                f"{path}: its step {shared[0]!r} has the name of one of {file} in Dagster; give it another "
                f"`pipeline.name`"
            )
    return None


def step_names(pipeline: Pipeline) -> Iterator[str]:
    """What Dagster calls the steps: the parts of their assets' keys, joined."""
    for node in pipeline.nodes:
        yield "__".join(asset_key(pipeline.name, node.name).path)


def circles(pipelines: Mapping[Path, Pipeline]) -> dict[Path, str]:
    """The pipelines that wait for each other through `asset://` names, with what is wrong."""
    left = dict(pipelines)
    found: dict[Path, str] = {}
    while circle := _circle(left):
        for path in circle:
            others = ", ".join(str(other) for other in circle if other != path)
            found[path] = f"{path}: it waits for results of {others}, and they for its own; cut the circle"
            del left[path]
    return found


def _circle(pipelines: Mapping[Path, Pipeline]) -> Sequence[Path]:
    waits = {
        asset_key(pipeline.name, node.name).to_user_string(): (path, _upstream(pipeline, node))
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
    return [asset_key(pipeline.name, up).to_user_string() for up in upstream_of(node)]
