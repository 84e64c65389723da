"""A YAML file as plain data, with the line and column of every key, and command-line overrides."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tunemill.pipelines.problems import ConfigError, Problem

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """`data` is the mapping of the file without its null keys; `positions` maps key path -> (line, column)."""

    path: Path
    data: dict[str, Any]
    positions: dict[KeyPath, tuple[int, int]]

    @property
    def folder(self) -> Path:
        return self.path.parent

    def position(self, path: KeyPath) -> tuple[int, int]:
        """Line and column (from 1) of a key, or of its nearest parent that is in the file."""
        while path and path not in self.positions:
            path = path[:-1]
        return self.positions.get(path, (1, 1))


def spell(path: KeyPath) -> str:
    """`("datasets", 0, "path")` as `datasets[0].path`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read_document(path: Path, overrides: Sequence[str] = ()) -> Document:
    """Read a pipeline's YAML and apply `key=value` overrides. Raises ConfigError with every problem found."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(path, [Problem("", 1, 1, "value", "there is no such file")]) from error
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise ConfigError(path, [Problem("", 1, 1, "value", f"not a readable text file: {error}")]) from error
    loader = yaml.SafeLoader(text)
    problems: list[Problem] = []
    positions: dict[KeyPath, tuple[int, int]] = {}
    try:
        node = loader.get_single_node()
        if node is not None:
            _note_positions(node, (), positions, problems)
        data = loader.construct_document(node) if node is not None else {}
    except yaml.YAMLError as error:
        raise ConfigError(path, [_syntax_problem(error)]) from error
    if not isinstance(data, dict):
        problems.append(Problem("", 1, 1, "value", "the file must hold a mapping of keys to values"))
    if problems:
        raise ConfigError(path, problems)
    for override in overrides:
        _override(data, override, path)
    return Document(path.resolve(), _without_nulls(data), positions)


def _note_positions(
    node: yaml.Node, path: KeyPath, positions: dict[KeyPath, tuple[int, int]], problems: list[Problem]
) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line, column = key.start_mark.line + 1, key.start_mark.column + 1
            below = (*path, key.value)
            if below in positions and key.value != "<<":
                first = positions[below][0]
                message = f"the key is given twice, first in line {first}; keep one of them"
                problems.append(Problem(spell(below), line, column, "value", message))
            positions[below] = (line, column)
            _note_positions(value, below, positions, problems)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            positions[(*path, index)] = (item.start_mark.line + 1, item.start_mark.column + 1)
            _note_positions(item, (*path, index), positions, problems)


def _syntax_problem(error: yaml.YAMLError) -> Problem:
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    reason = error.problem if isinstance(error, yaml.MarkedYAMLError) and error.problem else str(error)
    return Problem("", line, column, "value", f"not valid YAML: {reason}")


def _override(data: dict[str, Any], override: str, path: Path) -> None:
    """Set one `a.b[0].c=value`; the value is read as YAML, so `1e-4`, `true` and `[a, b]` mean what they say."""
    spelled, _, text = override.partition("=")
    parts: list[str | int] = [
        int(number) if number else name for name, number in re.findall(r"([^.\[\]]+)|\[(\d+)\]", spelled)
    ]
    target: Any = data
    for part, following in zip(parts, [*parts[1:], None], strict=True):
        if isinstance(target, list) and isinstance(part, str) and part.isdigit():
            part = int(part)
        fits = (
            isinstance(target, dict)
            if isinstance(part, str)
            else isinstance(target, list) and part < len(target)
        )
        if not fits:
            message = f"--{override}: there is nothing at this place in the file that could be set"
            raise ConfigError(path, [Problem(spelled, 1, 1, "value", message)])
        if following is None:
            target[part] = yaml.safe_load(text)
        elif isinstance(target, dict):
            target = target.setdefault(part, {})
        else:
            target = target[part]


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
