"""Reasonings and calls of tools that a chat template does not write, found by marks in their place."""

from collections.abc import Collection, Sequence
from typing import Any

from jinja2 import TemplateError

from tunemill.stages.data.conversations.calls import CALLS
from tunemill.stages.data.conversations.example import Message, Render
from tunemill.stages.data.conversations.keys import REASONING

# What data call a message's reasoning, and its calls.
FIELDS = (REASONING, "reasoning", "thinking", CALLS)


def unwritten(
    messages: Sequence[Message], names: Collection[str], tools: list[Any] | None, render: Render
) -> list[str]:
    """Those of the properties `names` that are not written, each once for each message that has it.

    None where the template refuses a conversation with marks.
    """
    marks: dict[str, str] = {}
    marked = [
        {name: _marked(value, name, marks) if name in names else value for name, value in message.items()}
        for message in messages
    ]
    if not marks:
        return []
    try:
        text = render(marked, tools)
    except TemplateError:
        return []
    return [name for mark, name in marks.items() if mark not in text]


def says_something(value: Any) -> bool:
    """Whether a field holds anything, be it as JSON text."""
    return value.strip() not in ("", "[]", "null") if isinstance(value, str) else bool(value)


def _marked(value: Any, name: str, marks: dict[str, str]) -> Any:
    """The value with a mark in place of its text, or of the name of each call; a new mark is noted with its name."""
    # Of the private use area, and not those of `skeletons.py`.
    mark = f"\ue010{len(marks)}\ue011"
    if isinstance(value, str) and says_something(value):
        marks[mark] = name
        return mark
    calls = value if name == CALLS and isinstance(value, list) else []
    if not calls or not all(isinstance(call, dict) for call in calls):
        return value
    marks[mark] = name
    return [_call(call, mark) for call in calls]


def _call(call: dict[str, Any], mark: str) -> dict[str, Any]:
    function = call.get("function")
    return (
        {**call, "function": {**function, "name": mark}}
        if isinstance(function, dict)
        else {**call, "name": mark}
    )
