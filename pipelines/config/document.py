"""A YAML file as plain data, with the line and column of every key, and command-line overrides."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tunemill.pipelines.config.problems import ConfigError, Problem

KeyPath = tuple[str | int, ...]


class Loader(yaml.SafeLoader):
    """Reads `1e-5` as a number, as YAML 1.2 does; YAML 1.1 wants a dot in it."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d[\d_]*(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


# A whole number is a key too, its digits: `id2label: {0: bad, 1: good}`.
KEY_TAGS = frozenset({"tag:yaml.org,2002:str", "tag:yaml.org,2002:merge", "tag:yaml.org,2002:int"})


@dataclass(frozen=True)
class Document:
    """`data` is the file's mapping without null keys, `raw` with them; `positions`: key path -> (line, column)."""

    path: Path
    data: dict[str, Any]
    raw: dict[str, Any]
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
    problems: list[Problem] = []
    positions: dict[KeyPath, tuple[int, int]] = {}
    try:
        loader = Loader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        if node is not None:
            _note_positions(node, (), positions, problems)
        if problems:
            raise ConfigError(path, problems)
        data = _with_text_keys(loader.construct_document(node)) if node is not None else {}
    except yaml.YAMLError as error:
        raise ConfigError(path, [_syntax_problem(error)]) from error
    except ConfigError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(path, [Problem("", 1, 1, "value", f"cannot be read: {reason.lower()}")]) from error
    if not isinstance(data, dict):
        problems.append(Problem("", 1, 1, "value", "the file must hold a mapping of keys to values"))
    problems += _numbers_out_of_range(data, (), positions)
    if problems:
        raise ConfigError(path, problems)
    for override in overrides:
        _override(data, override, path)
    return Document(path.resolve(), _without_nulls(data), data, positions)


def _note_positions(
    node: yaml.Node, path: KeyPath, positions: dict[KeyPath, tuple[int, int]], problems: list[Problem]
) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line, column = key.start_mark.line + 1, key.start_mark.column + 1
            if key.tag not in KEY_TAGS:
                message = "a key must be text; put it in quotes if it is meant as text"
                problems.append(Problem(spell(path), line, column, "value", message))
                continue
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
    try:
        value = _with_text_keys(yaml.load(text, Loader=Loader))  # noqa: S506  a safe loader with one more number format
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(path, [Problem(spelled, 1, 1, "value", f"--{override}: not valid YAML")]) from error
    target: Any = data
    for number, part in enumerate(parts or [spelled]):
        if isinstance(target, list) and isinstance(part, str) and part.isdigit():
            part = int(part)
        in_list = isinstance(target, list) and isinstance(part, int) and part < len(target)
        if not parts or not (in_list or (isinstance(target, dict) and isinstance(part, str))):
            message = f"--{override}: there is nothing at this place in the file that could be set"
            raise ConfigError(path, [Problem(spelled, 1, 1, "value", message)])
        if number == len(parts) - 1:
            target[part] = value
        elif in_list:
            target = target[part]
        else:
            if target.get(part) is None:
                target[part] = {}
            target = target[part]


def _with_text_keys(value: Any) -> Any:
    """The same with whole-number keys as text, which is what they are in JSON."""
    if isinstance(value, dict):
        return {str(key): _with_text_keys(item) for key, item in value.items()}
    return [_with_text_keys(item) for item in value] if isinstance(value, list) else value


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


def _numbers_out_of_range(
    value: Any, path: KeyPath, positions: dict[KeyPath, tuple[int, int]]
) -> list[Problem]:
    """NaN and infinity, which no key can hold."""
    if isinstance(value, float) and not math.isfinite(value):
        return [
            Problem(spell(path), *positions.get(path, (1, 1)), "value", f"{value} is not a finite number")
        ]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [
        problem for key, item in items for problem in _numbers_out_of_range(item, (*path, key), positions)
    ]
