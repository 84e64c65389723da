"""From a file's bytes, or an override's text, to the nodes of its YAML, within limits on size and depth."""

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tunemill.pipelines.config.spans import lines_of
from tunemill.pipelines.config.yaml_fast import PLAIN, usual_nodes
from tunemill.resources.local import refusal

# A pipeline's YAML has some hundred values. Reading takes time and memory for each, so a file made to take
# much of both, or some other YAML taken for a pipeline, is refused within a second.
MAX_BYTES = 256 * 1024
MAX_VALUES = 10_000
MAX_DEPTH = 50


class YamlError(ValueError):
    """A text that cannot be read as YAML, and where: line and column count from 1."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


class TooMuchError(YamlError):
    """A text beyond one of the limits."""


class _Loader(yaml.SafeLoader):
    """Composes nodes and counts them; gives scalars no type."""

    count = 0
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.count += 1
        self.depth += 1
        line, column = self.line + 1, self.column + 1
        if self.count > MAX_VALUES:
            raise TooMuchError(f"more than {MAX_VALUES} values; a config has fewer", line, column)
        if self.depth > MAX_DEPTH:
            raise TooMuchError(f"nested more than {MAX_DEPTH} deep; a config needs less", line, column)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def resolve(self, kind: type[yaml.Node], value: str, implicit: Any) -> str:  # noqa: ARG002  PyYAML's signature
        if kind is yaml.ScalarNode:
            return PLAIN if implicit[0] else str(self.DEFAULT_SCALAR_TAG)
        return str(self.DEFAULT_MAPPING_TAG if kind is yaml.MappingNode else self.DEFAULT_SEQUENCE_TAG)


def text_of_file(path: Path) -> str:
    """A file's text: UTF-8, or UTF-16 that begins with its mark. Raises OSError, YamlError.

    What is no regular file is not opened.
    """
    if reason := refusal(path):
        raise YamlError(f"cannot be read: {reason}")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise TooMuchError(f"the file is larger than {MAX_BYTES // 1024} KiB; a config is smaller")
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "utf-16" if is_utf16 else "utf-8"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        before = data[: error.start].decode(encoding, errors="replace")
        message = f"byte {error.start} is no {encoding.upper()}; save the file as UTF-8"
        raise YamlError(message, *_place(before)) from error


def node_of(text: str) -> yaml.Node | None:
    """The node of a text's one document; None where it is empty. Raises YamlError."""
    usual = usual_nodes(text)
    if usual is not None and len(usual) <= 1:
        return usual[0] if usual else None
    try:
        return _Loader(text).get_single_node()
    except yaml.YAMLError as error:
        raise _problem(error, text) from error


def nodes_of(text: str) -> Iterator[yaml.Node]:
    """The nodes of all documents of a text. Raises YamlError."""
    usual = usual_nodes(text)
    if usual is not None:
        yield from usual
        return
    try:
        loader = _Loader(text)
        while loader.check_node():
            node = loader.get_node()
            assert node is not None
            yield node
    except yaml.YAMLError as error:
        raise _problem(error, text) from error


def _problem(error: yaml.YAMLError, text: str) -> YamlError:
    if isinstance(error, yaml.reader.ReaderError):
        shown = f"the character {chr(error.character)!a} is not allowed"
        return YamlError(f"not valid YAML: {shown}", *_place(text[: error.position]))
    if not isinstance(error, yaml.MarkedYAMLError):
        return YamlError(f"not valid YAML: {error}")
    mark = error.problem_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    reason = error.problem or str(error)
    remedy = "; indent with spaces" if "'\\t'" in reason else ""
    if "alphabetic or numeric" in reason:
        remedy = "; put a text that begins with * or & in quotes"
    return YamlError(f"not valid YAML: {reason}{remedy}", line, column)


def _place(before: str) -> tuple[int, int]:
    """Line and column of what follows a text."""
    lines = lines_of(before)
    return len(lines), len(lines[-1]) + 1
