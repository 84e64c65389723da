"""From a YAML to a pipeline: everything that can be said about a config without touching a source."""

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tunemill.pipelines.config.check import unknown_keys
from tunemill.pipelines.config.document import Document, read_document
from tunemill.pipelines.config.graph_config import GraphConfig
from tunemill.pipelines.config.idle_keys import idle_keys
from tunemill.pipelines.config.key_paths import KeyPath
from tunemill.pipelines.config.machine import has_gpu, meant_without_gpu
from tunemill.pipelines.config.problems import ConfigError, Problem
from tunemill.pipelines.config.readers import unread_keys, wrong_values
from tunemill.pipelines.config.renamed_keys import with_todays_names
from tunemill.pipelines.config.slices import ASSET_SCHEME, cut, problem_at, validate
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.pipelines.graph.places import Place, later_configs, places, plain_name, prepares_only
from tunemill.resources.local import local_path
from tunemill.stages.declaration import StageConfig
from tunemill.stages.registry import STAGES


def load_pipeline(path: Path, overrides: Sequence[str] = ()) -> Pipeline:
    """Read and check a pipeline's YAML. Raises ConfigError with every problem found."""
    document, problems = with_todays_names(spelled_out(read_document(path, overrides)))
    problems += document.notes
    problems += unknown_keys(document)
    problems += idle_keys(document)
    pipeline, more = build(document)
    problems = once([*problems, *more])
    if pipeline is None or not all(problem.is_note for problem in problems):
        raise ConfigError(document.path, problems)
    return replace(pipeline, notes=tuple(problems))


def build(document: Document) -> tuple[Pipeline | None, list[Problem]]:
    """The graph of a document with its notes; or None and every problem that stands in its way."""
    graph = validate(GraphConfig, cut(GraphConfig, document), document)
    if isinstance(graph, list):
        return None, graph
    assert isinstance(graph, GraphConfig)
    nodes, problems = nodes_of(places(graph), document)
    problems += problems_of_keys(graph, document)
    name = graph.name or plain_name(document.path.stem)
    if graph.base_model.startswith(f"{ASSET_SCHEME}{name}/"):
        message = f"{graph.base_model} is this pipeline's own result; name another pipeline's"
        problems.append(problem_at(("base_model",), document, "conflict", message))
    if not all(problem.is_note for problem in problems):
        return None, problems
    output_dir, prepared_path = (
        document.folder / local_path(place, "the folder of links to results") if place else None
        for place in (graph.output_dir, graph.dataset_prepared_path)
    )
    made = Pipeline(name, document, tuple(nodes), output_dir, prepared_path, prepares_only(graph))
    return made, problems


def nodes_of(found: Sequence[Place], document: Document) -> tuple[list[Node], list[Problem]]:
    """The nodes whose slices are right, and the problems and notes of all."""
    nodes: list[Node] = []
    problems: list[Problem] = []
    without_gpu = not has_gpu()
    for place in found:
        piece = cut(place.stage.config, document, place.entry, place.given)
        config = validate(place.stage.config, piece, document)
        if isinstance(config, list):
            problems += config
            continue
        unused = config.unused_inputs()
        inputs = {name: upstream for name, upstream in place.inputs.items() if name not in unused}
        nodes.append(Node(place.name, place.stage, config, inputs, piece.places, place.about))
        problems += [
            problem_at(piece.places[item.key], document, "idle", f"asks for nothing: {item.reason}")
            for item in config.idle()
        ]
        if without_gpu:
            problems += meant_without_gpu(config, piece.places, document)
    return nodes, problems


def problems_of_keys(graph: GraphConfig, document: Document) -> Iterator[Problem]:
    """Keys that nobody in the graph reads, and wrong values of keys that nobody reads."""
    found = places(graph)
    present = [place.stage.config for place in found]
    readers: dict[KeyPath, list[type[StageConfig]]] = {(): [GraphConfig, *present, *later_configs(graph)]}
    for place in found:
        if place.entry is not None:
            readers.setdefault(place.entry, []).append(place.stage.config)
    others = [stage for stage in STAGES if stage.name not in {place.stage.name for place in found}]
    # The graph reads of some keys only whether they are there.
    wrong = list(wrong_values(document, others, present))
    yield from wrong
    known = {problem.path for problem in wrong}
    for problem in unread_keys(document, readers, STAGES, graph.method):
        if problem.path not in known:
            yield problem


def once(problems: Sequence[Problem]) -> list[Problem]:
    """Each problem once.

    Of a key that nobody reads the first that is said counts; and of a value with something wrong inside it not also
    that it is none of the other things that might stand there.
    """
    found: list[Problem] = []
    said: set[str] = set()
    paths = sorted({problem.path for problem in problems})
    for problem in dict.fromkeys(problems):
        if problem.kind == "unread" and problem.path in said:
            continue
        if problem.kind == "value" and has_inside(paths, problem.path):
            continue
        found.append(problem)
        if problem.kind != "ambiguous":
            said.add(problem.path)
    return found


def has_inside(paths: Sequence[str], outer: str) -> bool:
    """Whether one of the sorted paths leads into the value of another."""
    starts = (f"{outer}.", f"{outer}[")
    after = (bisect.bisect_left(paths, start) for start in starts)
    return any(
        index < len(paths) and paths[index].startswith(start)
        for index, start in zip(after, starts, strict=True)
    )


def spelled_out(document: Document) -> Document:
    """The document with `pretraining_dataset: name`, which Axolotl takes too, as a list of one entry."""
    given = document.data.get("pretraining_dataset")
    if not isinstance(given, str):
        return document
    return replace(document, data={**document.data, "pretraining_dataset": [{"path": given}]})
