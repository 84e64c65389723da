"""A YAML with a sweep as its pipelines: one for each point, checked together."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tunemill.pipelines.config.document import Document, read_document
from tunemill.pipelines.config.key_paths import lies_in
from tunemill.pipelines.config.overrides import Override, override_of
from tunemill.pipelines.config.problems import ConfigError, Problem
from tunemill.pipelines.config.sweep_keys import SWEEP, SweepSettings
from tunemill.pipelines.config.sweep_points import Point, has_sweep, points_of
from tunemill.pipelines.config.yaml_text import YamlError, text_of_file
from tunemill.pipelines.graph.keys import key_inputs
from tunemill.pipelines.graph.load import load_pipeline, own_name
from tunemill.pipelines.graph.looks import LookAt, nothing
from tunemill.pipelines.graph.nodes import Pipeline
from tunemill.pipelines.graph.sweep_settings import settings_of, settings_problems
from tunemill.resources.canonical import hash_document

# Of the points of which alone something is said.
SHOWN = 3


@dataclass(frozen=True)
class Sweep:
    """The pipelines of a YAML's points, in the order of its grid. `name` is what the YAML is called itself."""

    name: str
    document: Document
    settings: SweepSettings
    pipelines: tuple[Pipeline, ...]
    notes: tuple[Problem, ...]

    @property
    def store(self) -> str | None:
        """The store that a team shares, which no sweep can be over."""
        return self.pipelines[0].store


def is_sweep(path: Path, overrides: Sequence[str | Override] = ()) -> bool:
    """Whether a YAML, with these overrides, means several pipelines. Raises ConfigError where it cannot be read."""
    if not overrides and not _mentions_sweep(path):
        return False
    document = read_document(path, overrides)
    return has_sweep(document) and document.data["pipeline"].get("point") is None


def load_sweep(path: Path, overrides: Sequence[str | Override] = (), look_at: LookAt = nothing) -> Sweep:
    """Read and check all points of a YAML's sweep. Raises ConfigError with every problem found, each once."""
    document = read_document(path, overrides)
    settings = settings_of(document)
    points = points_of(document, own_name(document))
    found: dict[str, list[Problem]] = {}
    pipelines: list[Pipeline] = []
    file = document.path
    for point in points:
        try:
            loaded = load_pipeline(path, [*overrides, _point_override(point)], look_at)
            is_over = settings.max_runs is not None and len(found) >= settings.max_runs
            left_out = f"max_runs: {settings.max_runs}" if is_over else None
            pipelines.append(replace(loaded, point=replace(point, left_out=left_out)))
            found[point.name] = list(loaded.notes)
        except ConfigError as error:
            found[point.name], file = list(error.problems), error.file
    problems = _of_all(found)
    problems = [*_refused(problems, points, found), *settings_problems(settings, pipelines, document)]
    problems += _same(pipelines, document)
    if not all(problem.is_note for problem in problems):
        raise ConfigError(file, problems)
    return Sweep(own_name(document), document, settings, tuple(pipelines), tuple(problems))


def load_all(path: Path, look_at: LookAt = nothing) -> list[Pipeline]:
    """The one pipeline of a YAML, or those of its sweep. Raises ConfigError."""
    return (
        list(load_sweep(path, (), look_at).pipelines)
        if is_sweep(path)
        else [load_pipeline(path, (), look_at)]
    )


def load_named(path: Path, name: str, grid: str | None = None) -> Pipeline:
    """The pipeline of a YAML, or of its sweep the point whose pipeline has this name. `grid` is the YAML of the sweep,
    where the pipeline's own does not name it. Raises ConfigError.
    """
    given = [] if grid is None else [override_of(f"pipeline.sweep={json.dumps(grid)}")]
    if not is_sweep(path, given):
        return load_pipeline(path, given)
    document = read_document(path, given)
    points = points_of(document, own_name(document))
    point = next((one for one in points if one.pipeline == name), None)
    return load_pipeline(path, given if point is None else [*given, _point_override(point)])


def loaded_anew(pipeline: Pipeline) -> Pipeline:
    """The pipeline as its YAML is now: the same point, of a sweep. Raises ConfigError."""
    grid = None if pipeline.grid is None else str(pipeline.grid)
    return load_named(pipeline.document.path, pipeline.name, grid)


def shown_place(file: Path, pipeline: Pipeline) -> Path:
    """Where a pipeline of a folder stands, for people: the file, and behind `@` the point of its sweep."""
    return file if pipeline.point is None else file.with_name(f"{file.name}@{pipeline.point.name}")


def _mentions_sweep(path: Path) -> bool:
    """Whether a file may have a sweep: thousands have none, and need not be read twice."""
    try:
        return "sweep" in text_of_file(path)
    except (OSError, YamlError):
        return True


def fingerprint(pipeline: Pipeline) -> str:
    """Of all that the keys of a pipeline's nodes are made of: two with the same one have the same results."""
    nodes = [
        {
            "node": node.name,
            "stage": node.stage.name,
            "config": node.config.semantic(),
            "sources": node.sources,
            "inputs": {name: list(ups) for name, ups in key_inputs(node).items()},
        }
        for node in pipeline.nodes
    ]
    return hash_document({"nodes": nodes})


def _point_override(point: Point) -> Override:
    return override_of(f"pipeline.point={point.name}")


def _of_all(found: Mapping[str, Sequence[Problem]]) -> list[Problem]:
    """Each problem once; what is not said of all points with their names."""
    points: dict[Problem, list[str]] = {}
    for name, problems in found.items():
        for problem in dict.fromkeys(problems):
            points.setdefault(problem, []).append(name)
    return [_named(problem, names, len(found)) for problem, names in points.items()]


def _named(problem: Problem, names: Sequence[str], count: int) -> Problem:
    if len(names) == count:
        return problem
    more = "" if len(names) <= SHOWN else f" and {len(names) - SHOWN} more"
    words = "the point" if len(names) == 1 else "the points"
    return replace(problem, message=f"{problem.message} (of {words} {', '.join(names[:SHOWN])}{more})")


def _refused(
    problems: Sequence[Problem], points: Sequence[Point], found: Mapping[str, Sequence[Problem]]
) -> Iterator[Problem]:
    """The problems; one is a swept key that asks for nothing in any point that sets it: its points are the same."""
    keys = dict.fromkeys(key for point in points for key in point.values)
    idle = {key for key in keys if all(_is_idle(key, found[one.name]) for one in points if key in one.values)}
    for problem in problems:
        mine = problem.kind == "idle" and any(
            problem.path == key or lies_in(problem.path, key) for key in idle
        )
        if mine:
            message = (
                f"{problem.message}. A sweep over it would make the same model again and again; take it out"
            )
            yield replace(problem, kind="unread", message=message)
        else:
            yield problem


def _is_idle(key: str, problems: Sequence[Problem]) -> bool:
    return any(problem.kind == "idle" and problem.path == key for problem in problems)


def _same(pipelines: Sequence[Pipeline], document: Document) -> Iterator[Problem]:
    """A note for each point whose results are those of another one."""
    first: dict[str, str] = {}
    for pipeline in pipelines:
        assert pipeline.point is not None, "of a sweep"
        one = first.setdefault(fingerprint(pipeline), pipeline.point.name)
        if one != pipeline.point.name:
            span = document.span(SWEEP)
            message = (
                f"the point {pipeline.point.name} has the results of {one}: what differs changes no result, or is the "
                f"default. It computes nothing"
            )
            yield Problem(
                "pipeline.sweep", span.line, span.column, "idle", message, None, span.end, span.source
            )
