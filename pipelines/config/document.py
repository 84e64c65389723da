"""A YAML file as plain data, with the line and column of every key, and command-line overrides."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunemill.pipelines.config.key_paths import KeyPath, lies_in, spell
from tunemill.pipelines.config.problems import ConfigError, Problem
from tunemill.pipelines.config.yaml_text import MAX_DEPTH, YamlError, node_of, text_of_file
from tunemill.pipelines.config.yaml_values import Values, values_of

# `a.b[0].c` as a, b, 0, c; no list has more items than seven digits count.
PARTS = re.compile(r"([^.\[\]]+)|\[([0-9]{1,7})\]")
INDEX = re.compile(r"[0-9]{1,7}")


@dataclass(frozen=True)
class Document:
    """`data` is the file's mapping without null keys, `raw` with them; `positions`: key path -> (line, column).

    `notes` are on values that other readers of YAML take for something else.
    """

    path: Path
    data: dict[str, Any]
    raw: dict[str, Any]
    positions: dict[KeyPath, tuple[int, int]]
    notes: tuple[Problem, ...] = ()

    @property
    def folder(self) -> Path:
        return self.path.parent

    def position(self, path: KeyPath) -> tuple[int, int]:
        """Line and column (from 1) of a key, or of its nearest parent that is in the file."""
        while path and path not in self.positions:
            path = path[:-1]
        return self.positions.get(path, (1, 1))


def read_document(path: Path, overrides: Sequence[str] = ()) -> Document:
    """Read a pipeline's YAML and apply `key=value` overrides. Raises ConfigError with every problem found."""
    read = _read(path)
    data = {} if read.data is None else read.data
    problems = list(read.problems)
    if not problems and not isinstance(data, dict):
        problems.append(Problem("", 1, 1, "value", "the file must hold a mapping of keys to values"))
    if problems:
        raise ConfigError(path, problems)
    notes = read.notes
    for override in overrides:
        notes = _override(data, notes, override, path)
    return Document(path.resolve(), _without_nulls(data), data, read.positions, tuple(notes))


def _read(path: Path) -> Values:
    try:
        return values_of(node_of(text_of_file(path)))
    except YamlError as error:
        raise ConfigError(path, [Problem("", error.line, error.column, "value", str(error))]) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(path, [Problem("", 1, 1, "value", f"cannot be read: {reason.lower()}")]) from error


def _override(data: dict[str, Any], notes: list[Problem], override: str, path: Path) -> list[Problem]:
    """Set one `a.b[0].c=value`; the value is read as YAML, so `1e-4`, `true` and `[a, b]` mean what they say.

    Returns the notes that stand then: those on what was replaced go.
    """
    spelled, _, text = override.partition("=")
    parts: list[str | int] = [int(number) if number else name for name, number in PARTS.findall(spelled)]
    nowhere = f"--{override}: there is nothing at this place in the file that could be set"
    if not 0 < len(parts) <= MAX_DEPTH:
        raise ConfigError(path, [Problem(spelled, 1, 1, "value", nowhere)])
    try:
        read = values_of(node_of(text), tuple(parts))
    except YamlError as error:
        message = f"--{override}: {error}"
        raise ConfigError(path, [Problem(spelled, 1, 1, "value", message)]) from error
    if read.problems:
        raise ConfigError(path, [replace(problem, line=1, column=1) for problem in read.problems])
    target: Any = data
    for number, part in enumerate(parts):
        if isinstance(target, list) and isinstance(part, str) and INDEX.fullmatch(part):
            part = int(part)
        in_list = isinstance(target, list) and isinstance(part, int) and part < len(target)
        if not (in_list or (isinstance(target, dict) and isinstance(part, str))):
            raise ConfigError(path, [Problem(spelled, 1, 1, "value", nowhere)])
        if number == len(parts) - 1:
            target[part] = read.data
        elif in_list:
            target = target[part]
        else:
            if target.get(part) is None:
                target[part] = {}
            target = target[part]
    replaced = spell(tuple(parts))
    kept = [note for note in notes if note.path != replaced and not lies_in(note.path, replaced)]
    return [*kept, *(replace(note, line=1, column=1) for note in read.notes)]


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
