"""From the nodes of a YAML to plain data: where each key stands, what is wrong, what others would read."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from tunemill.pipelines.config.key_paths import KeyPath, spell
from tunemill.pipelines.config.problems import Kind, Problem, problem_of_span
from tunemill.pipelines.config.scalars import OLD_BOOLEANS, Scalar, plain, shortened
from tunemill.pipelines.config.spans import Span, line_at, lines_of
from tunemill.pipelines.config.yaml_fast import PLAIN
from tunemill.pipelines.config.yaml_text import MAX_DEPTH, MAX_VALUES, TooMuchError

TAG = "tag:yaml.org,2002:"
# What may be asked for by a tag, and the words for it.
SCALAR_TAGS = {
    f"{TAG}int": (int, "a whole number"),
    f"{TAG}float": (float, "a number"),
    f"{TAG}bool": (bool, "true or false"),
    f"{TAG}null": (type(None), "null"),
}
TEXT = f"{TAG}str"
MERGE = "<<"
LONGEST_KEY = 250


Locate = Callable[[yaml.Node], Span]


@dataclass
class Values:
    """Plain data; `keys` and `values`: key path -> where they stand. Items of lists stand in both.

    What cannot be read is null in the data, and `broken`.
    """

    data: Any = None
    keys: dict[KeyPath, Span] = field(default_factory=dict)
    values: dict[KeyPath, Span] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    broken: set[KeyPath] = field(default_factory=set)


def values_of(node: yaml.Node | None, locate: Locate, path: KeyPath = ()) -> Values:
    """The values of a node that stands at `path`. Raises TooMuchError where aliases make too many of them."""
    walk = _Walk(locate)
    if node is not None:
        walk.values.data = walk.value(node, path)
    return walk.values


def in_file(text: str) -> Locate:
    """Where the nodes of a file's text stand. What is empty, or takes several lines, has no width."""
    lines = lines_of(text)

    def locate(node: yaml.Node) -> Span:
        start, end = node.start_mark, node.end_mark
        stop = end.column if end.line == start.line else start.column
        return Span(start.line + 1, start.column + 1, stop + 1, line_at(lines, start.line + 1))

    return locate


class _Walk:
    """Makes values anew for every alias, so that none is shared, and counts them."""

    def __init__(self, locate: Locate) -> None:
        self.locate = locate
        self.values = Values()
        self.count = 0
        self.around: list[yaml.Node] = []

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        span = self.locate(node)
        self.values.values.setdefault(path, span)
        self.count += 1
        if self.count > MAX_VALUES:
            message = f"aliases make more than {MAX_VALUES} values of this file; a config has fewer"
            raise TooMuchError(message, span.line, span.column)
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        if node in self.around:
            return self.say("value", "an alias stands inside of what it names", node, path)
        if len(self.around) >= MAX_DEPTH:
            message = f"aliases nest values more than {MAX_DEPTH} deep; a config needs less"
            raise TooMuchError(message, span.line, span.column)
        wanted = f"{TAG}map" if isinstance(node, yaml.MappingNode) else f"{TAG}seq"
        if node.tag != wanted:
            return self.say(
                "value", f"the tag {_spelled(node.tag)} has no meaning here; take it out", node, path
            )
        self.around.append(node)
        made = self.mapping(node, path) if isinstance(node, yaml.MappingNode) else self.sequence(node, path)
        self.around.pop()
        return made

    def sequence(self, node: yaml.Node, path: KeyPath) -> list[Any]:
        made = []
        for index, item in enumerate(node.value):
            self.values.keys[*path, index] = self.locate(item)
            made.append(self.value(item, (*path, index)))
        return made

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        """Its own keys win over those that `<<` merges into it."""
        merged: dict[str, Any] = {}
        for key, item in node.value:
            if _is_merge(key):
                merged = {**self.merged(item, path), **merged}
        own: dict[str, Any] = {}
        for key, item in node.value:
            name = None if _is_merge(key) else self.key(key, path)
            if name is None:
                continue
            below = (*path, name)
            if name in own:
                first = self.values.keys[below].line
                message = f"the key is given twice, first in line {first}; keep one of them"
                self.values.problems.append(problem_of_span(spell(below), self.locate(key), "value", message))
            self.values.keys[below] = self.locate(key)
            self.values.values.pop(below, None)
            own[name] = self.value(item, below)
        return {**merged, **own}

    def merged(self, node: yaml.Node, path: KeyPath) -> dict[str, Any]:
        """The keys of the mappings that `<<` names; the first that gives a key counts."""
        given = node.value if isinstance(node, yaml.SequenceNode) else [node]
        found: dict[str, Any] = {}
        for item in reversed(given):
            value = self.value(item, path) if isinstance(item, yaml.MappingNode) else None
            if isinstance(value, dict):
                found |= value
            elif not isinstance(item, yaml.MappingNode):
                self.say("value", "`<<` takes a mapping, or a list of mappings", item, path)
        return found

    def key(self, node: yaml.Node, path: KeyPath) -> str | None:
        """A key's text. A whole number is a key too, its digits: `id2label: {0: bad, 1: good}`.

        Words that YAML 1.1 takes for true and false are text here, as YAML 1.2 has it: `on: [base]`.
        """
        self.count += 1
        if isinstance(node, yaml.ScalarNode) and node.tag == PLAIN and node.value in OLD_BOOLEANS:
            return str(node.value)
        value = self.scalar(node, path) if isinstance(node, yaml.ScalarNode) else None
        is_text = isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))
        if is_text and len(str(value)) <= LONGEST_KEY:
            return str(value)
        message = "a key must be text; put it in quotes if it is meant as text"
        if is_text:
            message = f"a key of {len(str(value))} characters; no key has more than {LONGEST_KEY}"
        self.say("value", message, node, path)
        return None

    def scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        text = node.value
        if any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in text):
            return self.say("value", "text cannot hold the character \\0, nor half a character", node, path)
        if node.tag == TEXT:
            return text
        if node.tag != PLAIN and node.tag not in SCALAR_TAGS:
            return self.say(
                "value", f"the tag {_spelled(node.tag)} has no meaning here; take it out", node, path
            )
        try:
            read = plain(text)
        except ValueError as error:
            return self.say("value", str(error), node, path)
        if node.tag in SCALAR_TAGS:
            return self.tagged(read, node, path)
        if read.note is not None:
            self.say("ambiguous", read.note, node, path)
        return read.value

    def tagged(self, read: Scalar, node: yaml.ScalarNode, path: KeyPath) -> Any:
        kind, words = SCALAR_TAGS[node.tag]
        if type(read.value) is kind:
            return read.value
        if kind is float and type(read.value) is int:
            return float(read.value)
        message = f"{_spelled(node.tag)} asks for {words} (given: {shortened(node.value)!r})"
        return self.say("value", message, node, path)

    def say(self, kind: Kind, message: str, node: yaml.Node, path: KeyPath) -> Any:
        """Say something at a node's place; the value is None."""
        problem = problem_of_span(spell(path), self.locate(node), kind, message)
        if problem.is_note:
            self.values.notes.append(problem)
        else:
            self.values.problems.append(problem)
            self.values.broken.add(path)


def _is_merge(key: yaml.Node) -> bool:
    return isinstance(key, yaml.ScalarNode) and key.tag == PLAIN and key.value == MERGE


def _spelled(tag: str) -> str:
    return shortened(f"!!{tag.removeprefix(TAG)}" if tag.startswith(TAG) else tag)
