"""Where each message of a conversation stands in the text that the chat template makes of it.

Every content is wrapped in characters of the private use plane, the conversation is rendered once with and
once without them, and where they come out tells the boundaries. Where a template does not simply copy a
content, so that this fails, that message alone is replaced and the two texts are compared.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import TemplateError

from tunemill.stages.tokenized.example import Message, Render

# Message i opens with FIRST_MARK + 2i and closes with the next one.
FIRST_MARK = 0xF0000
LAST_MARK = 0xFFFFD
# Separators that count as white space: a template that trims a content trims them with its white space.
OUTER_OPEN, OUTER_CLOSE = "\x1c", "\x1d"
MARKS = re.compile(f"[{chr(FIRST_MARK)}-{chr(LAST_MARK)}{OUTER_OPEN}{OUTER_CLOSE}]")
PLACEHOLDER = chr(LAST_MARK)


@dataclass(frozen=True)
class Span:
    """Characters `start` to `end` of the text. The content's first character stands, or would, at `origin`."""

    start: int
    end: int
    origin: int


def locate(
    messages: list[Message], plain: Sequence[bool], tools: list[object] | None, render: Render
) -> tuple[str, list[Span | None]]:
    """The rendered text, and of each message the characters that came from it; `None` where there are none.

    `plain` says of each message that it has a text as content, and nothing else that the template reads.
    """
    text = render(messages, tools)
    marked = _spans_by_marks(messages, plain, tools, render, text)
    spans = [
        _span_by_comparison(messages, index, tools, render, text) if span is UNKNOWN else span
        for index, span in enumerate(marked)
    ]
    return text, spans


UNKNOWN = Span(-1, -1, -1)


def _spans_by_marks(
    messages: list[Message], plain: Sequence[bool], tools: list[object] | None, render: Render, text: str
) -> list[Span | None]:
    spans: list[Span | None] = [UNKNOWN] * len(messages)
    if MARKS.search(text) or 2 * len(messages) >= LAST_MARK - FIRST_MARK:
        return spans
    marked = list(messages)
    for index, message in enumerate(messages):
        if not plain[index]:
            continue
        if message["content"] == "":
            spans[index] = None
        elif message["content"].strip():
            marked[index] = {**message, "content": _mark(message["content"], index)}
    try:
        rendered = render(marked, tools)
    except TemplateError:
        return spans
    positions, stripped = _read_marks(rendered)
    if stripped != text:
        return spans
    for index, message in enumerate(messages):
        if marked[index] is not message:
            spans[index] = _span_of(message["content"], index, positions)
    return spans


def _mark(content: str, index: int) -> str:
    inner = content.strip()
    start = content.index(inner)
    opening, closing = chr(FIRST_MARK + 2 * index), chr(FIRST_MARK + 2 * index + 1)
    wrapped = f"{content[:start]}{opening}{inner}{closing}{content[start + len(inner) :]}"
    return wrapped if len(inner) == len(content) else f"{OUTER_OPEN}{wrapped}{OUTER_CLOSE}"


def _read_marks(rendered: str) -> tuple[dict[str, list[int]], str]:
    """Where each mark stood in the text without marks, and that text."""
    positions: dict[str, list[int]] = {}
    for count, match in enumerate(MARKS.finditer(rendered)):
        positions.setdefault(match.group(), []).append(match.start() - count)
    return positions, MARKS.sub("", rendered)


def _span_of(content: str, index: int, positions: dict[str, list[int]]) -> Span | None:
    starts = positions.get(chr(FIRST_MARK + 2 * index), [])
    ends = positions.get(chr(FIRST_MARK + 2 * index + 1), [])
    if len(starts) != 1 or len(ends) != 1 or ends[0] - starts[0] != len(content.strip()):
        return UNKNOWN
    before = len(content) - len(content.lstrip())
    after = len(content) - len(content.rstrip())
    origin = starts[0] - before
    start = origin if before and origin in positions.get(OUTER_OPEN, []) else starts[0]
    end = ends[0] + after if after and ends[0] + after in positions.get(OUTER_CLOSE, []) else ends[0]
    return Span(start, end, origin)


def _span_by_comparison(
    messages: list[Message], index: int, tools: list[object] | None, render: Render, text: str
) -> Span | None:
    """Replace one message and compare. Later messages may need this one (a tool's answer its call): then
    the conversation up to it is compared."""
    role = {"role": messages[index]["role"]} if "role" in messages[index] else {}
    replaced = [*messages[:index], {**role, "content": PLACEHOLDER}, *messages[index + 1 :]]
    try:
        other = render(replaced, tools)
    except TemplateError:
        text = render(messages[: index + 1], tools)
        other = render(replaced[: index + 1], tools)
    if other == text:
        return None
    start = _common_prefix(text, other)
    limit = min(len(text), len(other)) - start
    end = len(text) - min(limit, _common_prefix(text[::-1], other[::-1]))
    if end <= start:
        return None
    content = messages[index].get("content")
    found = text.find(content.strip(), start, end) if isinstance(content, str) and content.strip() else -1
    if found < 0:
        return Span(start, end, start)
    assert isinstance(content, str)
    return Span(start, end, found - (len(content) - len(content.lstrip())))


def _common_prefix(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
