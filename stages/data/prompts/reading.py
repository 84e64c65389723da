"""What becomes of a row: a prompt, and the other columns, which rewards are given."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tunemill.stages.data.conversations.example import BadRowError, Message, RowValue


@dataclass(frozen=True)
class Read:
    """A prompt, a text or messages, and the other columns of its row."""

    prompt: str | list[Message]
    columns: RowValue


Reader = Callable[[RowValue], list[Read]]


def as_it_is(row: RowValue) -> list[Read]:
    """A row whose `prompt` is a text, or a conversation that is to be answered."""
    value = row.get("prompt")
    columns = {key: column for key, column in row.items() if key != "prompt"}
    if isinstance(value, str) and value:
        return [Read(value, columns)]
    if isinstance(value, list):
        return [Read(messages_of(value, "prompt"), columns)]
    if value is None:
        raise BadRowError(f"no field 'prompt'; the row has {sorted(row)}")
    raise BadRowError(f"field 'prompt' must be a text or a list of messages: {value!r:.60}")


def questions_in(field: str) -> Reader:
    """Rows of conversations; what is behind the last message that is no answer is no part of the prompt."""

    def read(row: RowValue) -> list[Read]:
        messages = messages_of(listed(row, field), field)
        while messages and messages[-1]["role"] == "assistant":
            messages.pop()
        if not messages:
            raise BadRowError(f"field {field!r}: nothing but answers: there is no prompt")
        return [Read(messages, {key: column for key, column in row.items() if key != "prompt"})]

    return read


def listed(row: RowValue, field: str) -> list[Any]:
    """The list in a field."""
    value = row.get(field)
    if value is None:
        raise BadRowError(f"no field {field!r}; the row has {sorted(row)}")
    if not isinstance(value, list):
        raise BadRowError(f"field {field!r} must be a list of messages: {value!r:.60}")
    return value


def messages_of(value: list[Any], field: str) -> list[Message]:
    """Messages that each have a role and a content, or calls of tools."""
    for number, message in enumerate(value, 1):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise BadRowError(f"field {field!r}: message {number} has no role: {message!r:.60}")
        if message.get("content") is None and not message.get("tool_calls"):
            raise BadRowError(f"field {field!r}: message {number} has no content: {message!r:.60}")
    if not value:
        raise BadRowError(f"field {field!r}: there is no message")
    return list(value)
