"""A YAML file as plain data, with the place of every key and value, and command-line overrides."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tunemill.pipelines.config.key_paths import KeyPath, lies_in, spell
from tunemill.pipelines.config.overrides import Override, override_of
from tunemill.pipelines.config.problems import ConfigError, Kind, Problem, problem_of_span
from tunemill.pipelines.config.spans import WHOLE_FILE, Span, line_at, lines_of
from tunemill.pipelines.config.yaml_text import MAX_DEPTH, YamlError, node_of, text_of_file
from tunemill.pipelines.config.yaml_values import Values, in_file, values_of

INDEX = re.compile(r"[0-9]{1,7}")
# Of these problems the value is at fault, of others the key.
OF_VALUES: frozenset[Kind] = frozenset({"value", "ambiguous"})


@dataclass(frozen=True)
class Document:
    """`data` is the file's mapping without null keys, `raw` with them; `keys` and `values` say where they stand.

    `problems` are of what could not be read; values that are null for that are `broken`, as is what holds them. `notes`
    are on values that other readers of YAML take for something else, `overrides` what replaced values of the file.
    """

    path: Path
    data: dict[str, Any]
    raw: dict[str, Any]
    keys: dict[KeyPath, Span]
    values: dict[KeyPath, Span]
    notes: tuple[Problem, ...] = ()
    overrides: dict[KeyPath, Override] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    broken: frozenset[KeyPath] = frozenset()

    @property
    def folder(self) -> Path:
        return self.path.parent

    def position(self, path: KeyPath) -> tuple[int, int]:
        """Line and column (from 1) of a key, or of its nearest parent that is in the file."""
        span = self.span(path)
        return span.line, span.column

    def span(self, path: KeyPath, *, of_value: bool = False) -> Span:
        """Where a key stands, or its nearest parent that does; with `of_value` its value, if it takes one line."""
        while path and path not in self.keys:
            path, of_value = path[:-1], False
        key = self.keys.get(path, WHOLE_FILE)
        value = self.values.get(path, key)
        # An empty value has no place, and that of an alias is elsewhere.
        is_beside = of_value and (value.override or value.line >= key.line) and value.end > value.column
        return value if is_beside else key

    def override_at(self, path: KeyPath) -> Override | None:
        """The override that gave a key its value."""
        inside = (path[:length] for length in range(len(path), 0, -1))
        return next((self.overrides[part] for part in inside if part in self.overrides), None)


def problem_at(
    place: KeyPath,
    document: Document,
    kind: Kind,
    message: str,
    suggestion: str | None = None,
    *,
    of_value: bool = False,
) -> Problem:
    """A problem with the key at `place`, or with its value; a message loses the key and a colon at its beginning."""
    span = document.span(place, of_value=of_value or kind in OF_VALUES)
    key = spell(place)
    named = key if message.startswith(f"{key}: ") else place[-1] if place else ""
    return problem_of_span(key, span, kind, message.removeprefix(f"{named}: "), suggestion)


def read_document(path: Path, overrides: Sequence[str | Override] = ()) -> Document:
    """Read a pipeline's YAML and apply overrides of its keys. Raises ConfigError where it is no YAML of keys."""
    read = _read(path)
    data = {} if read.data is None and not read.problems else read.data
    if not isinstance(data, dict):
        span = read.values.get((), WHOLE_FILE)
        no_mapping = problem_of_span("", span, "value", "the file must hold a mapping of keys to values")
        raise ConfigError(path, read.problems or [no_mapping])
    given = [item if isinstance(item, Override) else override_of(item) for item in overrides]
    problems = [problem for override in given for problem in _override(read, data, override)]
    return Document(
        path.resolve(),
        _without_nulls(data),
        data,
        read.keys,
        read.values,
        tuple(read.notes),
        {override.parts: override for override in given},
        (*read.problems, *problems),
        frozenset(path[:length] for path in read.broken for length in range(1, len(path) + 1)),
    )


def _read(path: Path) -> Values:
    lines: list[str] = []
    try:
        text = text_of_file(path)
        lines = lines_of(text)
        return values_of(node_of(text), in_file(text))
    except YamlError as error:
        span = Span(error.line, error.column, error.column + 1, line_at(lines, error.line))
        raise ConfigError(path, [problem_of_span("", span, "value", str(error))]) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(path, [Problem("", 1, 1, "value", f"cannot be read: {reason.lower()}")]) from error


def _override(read: Values, data: dict[str, Any], override: Override) -> list[Problem]:
    """Set `a.b[0].c` to a value, which is read as YAML, so `1e-4`, `true` and `[a, b]` mean what they say.

    Returns what is wrong with it. The notes on what was replaced go.
    """
    spelled = override.text[slice(*override.key)]
    if not 0 < len(override.parts) <= MAX_DEPTH:
        message = f"{spelled or 'nothing'} is no key; write key=value, or below a key datasets[0].path=value"
        return [problem_of_span(spelled, override.key_span, "value", message)]

    def locate(node: yaml.Node) -> Span:
        begin = override.value[0]
        first, last = begin + node.start_mark.index, begin + node.end_mark.index
        return override.span(first, last)

    try:
        found = values_of(node_of(override.value_text), locate, override.parts)
    except YamlError as error:
        begin = override.value[0] + (error.column - 1 if error.line == 1 else 0)
        read.broken.add(override.parts)
        return [problem_of_span(spelled, override.span(begin, begin + 1), "value", str(error))]
    if found.problems:
        read.broken.add(tuple(int(part) if INDEX.fullmatch(str(part)) else part for part in override.parts))
        return found.problems
    path = _set(data, override.parts, found.data)
    if isinstance(path, str):
        return [problem_of_span(spelled, override.key_span, "value", path)]
    replaced = spell(path)
    read.notes[:] = [
        note for note in read.notes if note.path != replaced and not lies_in(note.path, replaced)
    ]
    read.notes += found.notes
    for spans, more in ((read.keys, found.keys), (read.values, found.values)):
        for place in [place for place in spans if place[: len(path)] == path]:
            del spans[place]
        spans |= {(*path, *place[len(path) :]): span for place, span in more.items()}
    read.keys[path] = override.key_span
    for length in range(1, len(path)):
        read.keys.setdefault(path[:length], override.key_span)
    return []


def _set(data: dict[str, Any], parts: KeyPath, value: Any) -> KeyPath | str:
    """Set a value. Returns where, with numbers for items of lists; or what is wrong with the place, as text."""
    target: Any = data
    path: KeyPath = ()
    for number, part in enumerate(parts):
        if isinstance(target, list) and isinstance(part, str) and INDEX.fullmatch(part):
            part = int(part)
        if isinstance(target, list) and isinstance(part, int):
            if part >= len(target):
                return _no_place(path, f"has {_items(len(target))}")
        elif isinstance(target, list):
            return _no_place(path, "is a list, whose items are chosen by number")
        elif not isinstance(target, dict) or not isinstance(part, str):
            return _no_place(path, "is no list" if isinstance(part, int) else "is no mapping")
        path = (*path, part)
        if number == len(parts) - 1:
            target[part] = value
        else:
            if isinstance(target, dict) and target.get(part) is None:
                target[part] = {}
            target = target[part]
    return path


def _items(count: int) -> str:
    return f"{count} item{'' if count == 1 else 's'}, and the first is number 0"


def _no_place(path: KeyPath, why: str) -> str:
    return f"there is nothing at this place in the file that could be set: {spell(path) or 'the file'} {why}"


def _without_nulls(data: dict[str, Any]) -> dict[str, Any]:
    """Null means unset: for keys, for keys of dataset entries, and below `pipeline`; deeper it is a value."""

    def given(mapping: dict[str, Any]) -> dict[str, Any]:
        return {key: item for key, item in mapping.items() if item is not None}

    cleaned = given(data)
    for key, item in cleaned.items():
        if isinstance(item, list):
            cleaned[key] = [given(entry) if isinstance(entry, dict) else entry for entry in item]
    if isinstance(cleaned.get("pipeline"), dict):
        cleaned["pipeline"] = given(cleaned["pipeline"])
    return cleaned
