"""Reasonings, calls of tools, and tools that a chat template does not write, found by marks in their place."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from jinja2 import TemplateError

from tunemill.stages.data.conversations.calls import CALLS
from tunemill.stages.data.conversations.example import Message, Render
from tunemill.stages.data.conversations.keys import REASONING

# What data call a message's reasoning, and its calls.
FIELDS = (REASONING, "reasoning", "thinking", CALLS)
# In place of a tool's name. Of the private use area, and not those of `skeletons.py`, as the other marks.
TOOL = "\ue010tool\ue011"
# So many different roles of conversations are remembered.
MOST = 512


# Messages and tools of a row -> what of them is not written.
Finder = Callable[[Sequence[Message], list[Any] | None], tuple[list[str], bool]]


def finder(names: Collection[str], render: Render) -> Finder:
    """A function that finds those of the properties `names` that are not written, each once for each message that has
    it; and whether there are tools that are not.

    It finds nothing where the template refuses a conversation with marks. Of rows with tools and none of the
    properties, one is rendered for all with its roles and its form of tools.
    """
    known: dict[tuple[Any, ...], bool] = {}

    def found(messages: Sequence[Message], tools: list[Any] | None) -> tuple[list[str], bool]:
        marks: dict[str, str] = {}
        marked = [
            {name: _marked(value, name, marks) if name in names else value for name, value in message.items()}
            for message in messages
        ]
        has_tools = tools is not None and any(_has_name(tool) for tool in tools)
        if not marks and not has_tools:
            return [], False
        # Templates differ in whether they read a tool's name below `function`.
        shape = (
            *(str(message.get("role")) for message in messages),
            {*map(_has_function, tools or [])} == {True},
        )
        if not marks and shape in known:
            return [], known[shape]
        try:
            text = render(marked, [_call(tool, TOOL) if _has_name(tool) else tool for tool in tools or []])
        except TemplateError:
            return [], False
        without_tools = has_tools and TOOL not in text
        if not marks and len(known) < MOST:
            known[shape] = without_tools
        return [name for mark, name in marks.items() if mark not in text], without_tools

    return found


def says_something(value: Any) -> bool:
    """Whether a field holds anything, be it as JSON text."""
    return value.strip() not in ("", "[]", "null") if isinstance(value, str) else bool(value)


def _marked(value: Any, name: str, marks: dict[str, str]) -> Any:
    """The value with a mark in place of its text, or of the name of each call; a new mark is noted with its name."""
    mark = f"\ue010{len(marks)}\ue011"
    if isinstance(value, str) and says_something(value):
        marks[mark] = name
        return mark
    calls = value if name == CALLS and isinstance(value, list) else []
    if not calls or not all(isinstance(call, dict) for call in calls):
        return value
    marks[mark] = name
    return [_call(call, mark) for call in calls]


def _has_name(tool: Any) -> bool:
    return _has_function(tool) or (isinstance(tool, dict) and "name" in tool)


def _has_function(tool: Any) -> bool:
    return isinstance(tool, dict) and isinstance(tool.get("function"), dict)


def _call(call: dict[str, Any], mark: str) -> dict[str, Any]:
    function = call.get("function")
    return (
        {**call, "function": {**function, "name": mark}}
        if isinstance(function, dict)
        else {**call, "name": mark}
    )
