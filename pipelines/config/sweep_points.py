"""From `pipeline.sweep` to its points: which keys each sets, what it is called, and what is wrong with the grid."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

from tunemill.pipelines.config.document import Document, problem_at, read_document
from tunemill.pipelines.config.key_paths import KeyPath, lies_in, spell
from tunemill.pipelines.config.overrides import Override, override_of
from tunemill.pipelines.config.problems import ConfigError, Problem, given, problem_of_span
from tunemill.pipelines.config.spans import Span
from tunemill.pipelines.config.sweep_keys import POINT, SETTINGS, SWEEP
from tunemill.pipelines.config.sweep_random import (
    DRAWS,
    GRID,
    KIND,
    OWN_KEYS,
    RANDOM,
    SEED,
    Range,
    drawn,
    is_range,
    range_of,
)
from tunemill.resources.local import LONGEST_NAME, local_path, short_name
from tunemill.stages.choices import nearest

# A grid with more is a mistake: each point is a pipeline of its own.
MOST_POINTS = 1000
# Keys of which every YAML of a sweep has a short name.
SHORT_KEYS = {"learning_rate": "lr"}
# Where links to results are put: each point has a folder of its own there.
PLACES = ("output_dir", "dataset_prepared_path")
# What a sweep says of itself is no key of a point.
OF_THE_SWEEP = (
    "pipeline.sweep",
    "pipeline.sweep_settings",
    "pipeline.name",
    "pipeline.point",
    "pipeline.store",
)
LETTERS_OF_HASH = 6
SHOWN = 8


@dataclass(frozen=True)
class Choice:
    """A key of the grid with one of its values, and where both stand."""

    key: str
    parts: KeyPath
    value: Any
    key_span: Span
    value_span: Span

    @property
    def override(self) -> Override:
        """The same as an override, whose problems are told at its place in the sweep."""
        text = f"{self.key}={json.dumps(self.value)}"
        made = override_of(text)
        return replace(made, parts=self.parts, key_at=self.key_span, value_at=self.value_span)


@dataclass(frozen=True)
class Axis:
    """A key of the grid, or sets of keys that vary together: each of `choices` is one. Of a range there is one that
    holds it.
    """

    name: str
    choices: Sequence[tuple[Choice, ...]]
    range: Range | None = None

    def at(self, share: float) -> tuple[Choice, ...]:
        """The choice at a share of the axis, from 0 up to 1."""
        if self.range is None:
            return self.choices[int(share * len(self.choices))]
        (one,) = self.choices[0]
        return (replace(one, value=self.range.at(share)),)


@dataclass(frozen=True)
class Point:
    """One combination: `name` is plain, `pipeline` the name of its pipeline, `sweep` that of the YAML.

    `values` are spelled key -> value; `overrides` make the pipeline of the YAML. `grid` is the YAML of the grid, where
    an override names it. `left_out` says why the sweep does not run it.
    """

    name: str
    pipeline: str
    sweep: str
    values: Mapping[str, Any]
    overrides: tuple[Override, ...]
    grid: Path | None
    left_out: str | None = None

    @property
    def shown(self) -> dict[str, str]:
        """Its values as people read them."""
        return {key: text_of_value(value) for key, value in self.values.items()}


def has_sweep(document: Document) -> bool:
    """Whether the YAML stands for several pipelines."""
    own = document.data.get("pipeline")
    return isinstance(own, dict) and own.get("sweep") is not None


def points_of(document: Document, base: str) -> list[Point]:
    """The points of a YAML's sweep, in the order of its grid: the last key varies first. Or those that are drawn.

    `base` is the name that the YAML has without its sweep. Raises ConfigError.
    """
    where, grid, place = _grid(document)
    problems = list(_problems_of(grid, place, where))
    if problems:
        raise ConfigError(where.path, problems)
    axes = list(_axes(grid, place, where))
    if grid.get(KIND) == RANDOM:
        combinations = _drawn(axes, grid, place, where)
    else:
        combinations = [
            tuple(one for part in parts for one in part)
            for parts in product(*(axis.choices for axis in axes))
        ]
    _refuse_twice(combinations, where)
    _refuse_overridden(combinations, document)
    names = _names([tuple((one.key, one.value) for one in choices) for choices in combinations])
    is_elsewhere = where is not document and SWEEP in document.overrides
    points = []
    for name, choices in zip(names, combinations, strict=True):
        values = {one.key: one.value for one in choices}
        pipeline = short_name(f"{base}_{name}", LONGEST_NAME)
        overrides = (
            *(one.override for one in choices),
            *_places_of(document, values, name),
            override_of(f"pipeline.name={json.dumps(pipeline)}"),
            *(override_of(f"{'.'.join(key)}=null") for key in (SWEEP, SETTINGS, POINT)),
        )
        points.append(Point(name, pipeline, base, values, overrides, where.path if is_elsewhere else None))
    return points


def asked_for(document: Document, base: str) -> Point | None:
    """The point of a sweep that the YAML means by `pipeline.point`; None where there is no sweep.

    Raises ConfigError where it means none: a sweep is several pipelines.
    """
    if not has_sweep(document):
        return None
    points = points_of(document, base)
    text = document.data["pipeline"].get("point")
    shown = ", ".join(one.name for one in points[:SHOWN]) + (
        f" and {len(points) - SHOWN} more" if len(points) > SHOWN else ""
    )
    if text is None:
        message = (
            f"this YAML is a sweep of {len(points)} points, each a pipeline. `tunemill sweep` runs them, and "
            f"--point NAME means one: {shown}"
        )
        raise ConfigError(document.path, [problem_at(SWEEP, document, "value", message)])
    found = chosen_point(points, str(text))
    if found is None:
        near = nearest(_plain(str(text)), [one.name for one in points])
        message = f"{text}: the sweep has no such point; there are {shown}"
        problem = problem_at(POINT, document, "value", message, near[0] if near else None)
        raise ConfigError(document.path, [problem])
    return found


def chosen_point(points: Sequence[Point], text: str) -> Point | None:
    """The point that a person names: as it is listed, with its values as they are (`lr_0.001`), or its pipeline."""
    plain = _plain(text)
    return next((one for one in points if plain in (one.name, one.pipeline)), None)


def text_of_value(value: Any) -> str:
    """A value as people read it."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _grid(document: Document) -> tuple[Document, dict[str, Any], KeyPath]:
    """The document that holds the grid, the grid, and where in that document it stands."""
    given_grid: Any = document.data["pipeline"]["sweep"]
    if isinstance(given_grid, str):
        try:
            file = document.folder / local_path(given_grid, "the file of the sweep")
        except ValueError as error:
            raise ConfigError(document.path, [problem_at(SWEEP, document, "value", str(error))]) from error
        if not file.is_file():
            message = (
                f"{file}: there is no such file; write the keys with their values here, or name their YAML"
            )
            raise ConfigError(document.path, [problem_at(SWEEP, document, "value", message)])
        where = read_document(file)
        if where.problems:
            raise ConfigError(where.path, where.problems)
        return where, where.raw, ()
    if not isinstance(given_grid, dict):
        shape = "a mapping of keys to lists of values, or the path of such a YAML"
        message = f"must be {shape} (given: {given(given_grid)})"
        raise ConfigError(document.path, [problem_at(SWEEP, document, "value", message)])
    return document, given_grid, SWEEP


def _problems_of(grid: Mapping[str, Any], place: KeyPath, where: Document) -> Iterator[Problem]:
    """What is wrong with the grid itself, whatever its keys mean."""
    yield from _wrong_draws(grid, place, where)
    swept, is_drawn = _swept(grid), grid.get(KIND) == RANDOM
    if not swept:
        yield problem_at(place, where, "value", "names no key to sweep over; give one with a list of values")
    spelled: dict[str, KeyPath] = {}
    count = 1
    for key, values in swept.items():
        here = (*place, key)
        if is_range(values) and not _is_paired(key):
            yield from _wrong_key(key, here, spelled, where)
            yield from _wrong_range(values, here, is_drawn, where)
            continue
        if not isinstance(values, list) or not values:
            what = "sets of keys" if _is_paired(key) else "values"
            message = f"must be a list of {what}, at least one (given: {given(values)})"
            yield problem_at(here, where, "value", message)
            continue
        count *= len(values)
        if not _is_paired(key):
            yield from _wrong_key(key, here, spelled, where)
            continue
        own: dict[str, KeyPath] = {}
        for index, one in enumerate(values):
            if not isinstance(one, dict) or not one:
                message = f"must be a mapping of keys to values that go together (given: {given(one)})"
                yield problem_at((*here, index), where, "value", message)
                continue
            for name in one:
                if name not in own:
                    own[name] = (*here, index, name)
                    yield from _wrong_key(name, own[name], spelled, where)
    if count > MOST_POINTS and not is_drawn:
        message = f"makes {count} points, and each is a pipeline; at most {MOST_POINTS}. Give fewer values"
        yield problem_at(place, where, "value", message)


def _wrong_draws(grid: Mapping[str, Any], place: KeyPath, where: Document) -> Iterator[Problem]:
    """What is wrong with how points are drawn."""
    kind, count, seed = grid.get(KIND, GRID), grid.get(DRAWS), grid.get(SEED, 0)
    if kind not in (GRID, RANDOM):
        message = f"must be {GRID}, every combination, or {RANDOM} (given: {given(kind)})"
        yield problem_at((*place, KIND), where, "value", message)
    elif kind == GRID:
        for key in (DRAWS, SEED):
            if key in grid:
                message = f"is of points that are drawn. Write kind: {RANDOM} beside it, or take it out"
                yield problem_at((*place, key), where, "value", message)
    elif type(count) is not int or not 0 < count <= MOST_POINTS:
        message = (
            f"kind: {RANDOM} takes draws: how many points, from 1 to {MOST_POINTS} (given: {given(count)})"
        )
        yield problem_at((*place, DRAWS if DRAWS in grid else KIND), where, "value", message)
    if kind == RANDOM and type(seed) is not int:
        yield problem_at((*place, SEED), where, "value", f"must be a whole number (given: {given(seed)})")


def _wrong_range(
    values: Mapping[str, Any], here: KeyPath, is_drawn: bool, where: Document
) -> Iterator[Problem]:
    if not is_drawn:
        message = f"a range has no list of values to try. Write them, or kind: {RANDOM} and draws beside it"
        yield problem_at(here, where, "value", message)
        return
    try:
        range_of(values)
    except ValueError as error:
        yield problem_at(here, where, "value", f"{error} (given: {given(values)})")


def _swept(grid: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the grid, without what says how it is gone through."""
    return {key: values for key, values in grid.items() if key not in OWN_KEYS}


def _wrong_key(key: str, here: KeyPath, spelled: dict[str, KeyPath], where: Document) -> Iterator[Problem]:
    """A key that cannot be swept over, or that stands in the grid already."""
    parts = _parts(key)
    name = spell(parts) if parts else key
    if not parts or not isinstance(parts[0], str):
        yield problem_at(here, where, "value", f"{key!r} is no key; below a key write datasets[0].path")
    elif name == "pipeline" or name in OF_THE_SWEEP or lies_in(name, "pipeline.sweep_settings"):
        yield problem_at(
            here, where, "value", f"{name} is of the whole sweep, and cannot differ in its points"
        )
    for other in spelled:
        if name == other or lies_in(name, other) or lies_in(other, name):
            message = f"{name} is set by {other} of the same sweep too; keep one of them"
            yield problem_at(here, where, "conflict", message)
    spelled.setdefault(name, here)


def _parts(key: str) -> KeyPath:
    return override_of(f"{key}=").parts


def _is_paired(key: str) -> bool:
    return key.startswith("_")


def _axes(grid: Mapping[str, Any], place: KeyPath, where: Document) -> Iterator[Axis]:
    """What varies, in the order of the grid."""

    def choice(key: str, value: Any, path: KeyPath, key_path: KeyPath) -> Choice:
        parts = _parts(key)
        return Choice(spell(parts), parts, value, where.span(key_path), where.span(path, of_value=True))

    for key, values in _swept(grid).items():
        here = (*place, key)
        if is_range(values):
            yield Axis(key, [(choice(key, values, here, here),)], range_of(values))
        elif _is_paired(key):
            sets = [
                tuple(
                    choice(name, item, (*here, index, name), (*here, index, name))
                    for name, item in one.items()
                )
                for index, one in enumerate(values)
            ]
            yield Axis(key, sets)
        else:
            yield Axis(key, [(choice(key, item, (*here, index), here),) for index, item in enumerate(values)])


def _drawn(
    axes: Sequence[Axis], grid: Mapping[str, Any], place: KeyPath, where: Document
) -> list[tuple[Choice, ...]]:
    """The points of a random sweep. Raises ConfigError where there are not as many."""
    count = grid[DRAWS]
    found = [
        tuple(one for part in parts for one in part)
        for parts in drawn(
            {axis.name: axis.at for axis in axes},
            count,
            grid.get(SEED, 0),
            lambda parts: _identity([one for part in parts for one in part]),
        )
    ]
    if len(found) < count:
        message = (
            f"{count} points are asked for, and {len(found)} that differ were found. Give fewer, or take out kind, "
            f"draws and draw_seed for every combination of lists"
        )
        raise ConfigError(where.path, [problem_at((*place, DRAWS), where, "value", message)])
    return found


def _identity(choices: Sequence[Choice]) -> str:
    return json.dumps(sorted((one.key, one.value) for one in choices), sort_keys=True, default=str)


def _refuse_twice(combinations: Sequence[tuple[Choice, ...]], where: Document) -> None:
    """Raises ConfigError where two points set the same keys to the same values."""
    seen: dict[str, tuple[Choice, ...]] = {}
    problems = []
    for choices in combinations:
        known = _identity(choices)
        if known not in seen:
            seen[known] = choices
            continue
        twice = [
            one
            for one, other in zip(choices, seen[known], strict=False)
            if one.value_span != other.value_span
        ]
        for one in twice[:1]:
            message = f"{one.key} {text_of_value(one.value)} makes a point that is there already; take it out"
            problems.append(problem_of_span(one.key, one.value_span, "conflict", message))
    if problems:
        raise ConfigError(where.path, list(dict.fromkeys(problems)))


def _refuse_overridden(combinations: Sequence[tuple[Choice, ...]], document: Document) -> None:
    """Raises ConfigError for an override of the command line that would make all points the same."""
    problems = []
    for one in combinations[0]:
        for parts, override in document.overrides.items():
            name = spell(parts)
            if name == one.key or lies_in(name, one.key) or lies_in(one.key, name):
                message = f"the sweep sets {one.key}, so it cannot be one value for all points; take this out"
                problems.append(problem_of_span(name, override.key_span, "conflict", message))
    if problems:
        raise ConfigError(document.path, problems)


def _names(points: Sequence[tuple[tuple[str, Any], ...]]) -> list[str]:
    """A plain name for each point, made of its own values alone; where two would be the same, with a digest."""
    plain = [_plain("_".join(f"{_short(key)}_{_word(value)}" for key, value in point)) for point in points]
    named = []
    for name, point in zip(plain, points, strict=True):
        text = json.dumps(point, sort_keys=True, default=str)
        twice = plain.count(name) > 1
        named.append(f"{name}_{sha256(text.encode()).hexdigest()[:LETTERS_OF_HASH]}" if twice else name)
    return named


def _short(key: str) -> str:
    return SHORT_KEYS.get(key, key)


def _word(value: Any) -> str:
    """A value as a part of a name: `0.001`, `true`, `q_proj_v_proj`."""
    if isinstance(value, list):
        return "_".join(map(_word, value)) or "none"
    if isinstance(value, dict):
        return "_".join(f"{key}_{_word(item)}" for key, item in value.items()) or "none"
    text = text_of_value(value)
    return f"minus_{text[1:]}" if text.startswith("-") else text


def _plain(text: str) -> str:
    """Letters, digits and underscores: what Dagster and file systems take."""
    return re.sub(r"[^A-Za-z0-9_]", "_", short_name(text, LONGEST_NAME)) or "point"


def _places_of(document: Document, values: Mapping[str, Any], name: str) -> Iterator[Override]:
    """A folder of its own for the links of a point: no point moves those of another."""
    for key in PLACES:
        folder = values.get(key, document.data.get(key))
        if isinstance(folder, str):
            made = override_of(f"{key}={json.dumps(f'{folder}/{name}')}")
            span, value = document.span((key,)), document.span((key,), of_value=True)
            yield replace(made, key_at=span, value_at=value)
