"""Messages of a preference row as the chat template wants them, read as those of conversations to train on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tunemill.stages.data.conversations.example import BadRowError, Message, RowValue
from tunemill.stages.data.conversations.json_in_text import parsed
from tunemill.stages.data.conversations.keys import ConversationKeys
from tunemill.stages.data.conversations.messages import MessageReader, TurnSource, message_reader
from tunemill.stages.data.preferences.config import PreferencesConfig
from tunemill.stages.data.rows.nulls import without_nulls

MESSAGES, SYSTEM = "messages", "system"


@dataclass(frozen=True)
class ConversationReader:
    """How messages are read: those before an answer, where a system message may be filled in, and answers."""

    before: MessageReader
    answers: MessageReader

    def history(self, messages: Sequence[Any], system: str | None, field: str) -> list[Message]:
        """What is to be answered. `system` is the first message where the messages have none of their own."""
        row: RowValue = {MESSAGES: list(messages)}
        if system is not None:
            row[SYSTEM] = system
        with in_field(field):
            return [turn.value for turn in self.before.turns(row)]

    def answer(self, message: Any, field: str) -> TurnSource:
        """An answer. `field` is where it comes from."""
        with in_field(field):
            return self.answers.turns({MESSAGES: [message]})[0]

    def message(self, role: str, content: str) -> Message:
        """A message in the data's own words."""
        mappings = self.answers.mappings
        return {mappings["role"]: role, mappings["content"]: content}

    def tools(self, row: RowValue) -> list[Any] | None:
        """The tools that the template describes."""
        return self.before.tools(row)


def conversation_reader(config: PreferencesConfig, template: str = "") -> ConversationReader:
    """`template` tells which further properties of messages matter."""
    common: dict[str, Any] = {
        "field_messages": MESSAGES,
        "field_system": SYSTEM,
        "field_tools": config.field_tools,
        "message_field_role": config.message_field_role,
        "message_field_content": config.message_field_content,
        "message_property_mappings": config.message_property_mappings,
        "roles": config.roles,
    }
    before = ConversationKeys(
        **common,
        drop_system_message=config.drop_system_message,
        default_system_message=config.default_system_message,
    )
    return ConversationReader(
        message_reader(before, template), message_reader(ConversationKeys(**common), template)
    )


@contextmanager
def in_field(field: str) -> Iterator[None]:
    """Errors of reading messages say which field these are in; numbers of messages count from there."""
    try:
        yield
    except BadRowError as error:
        raise BadRowError(f"field {field!r}: {error}") from None


def as_messages(row: RowValue, field: str) -> Any:
    """A list of messages, which may be stored as JSON text."""
    value = row.get(field)
    if value is None:
        raise BadRowError(f"no field {field!r}; the row has {sorted(row)}")
    return without_nulls(parsed(value, f"field {field!r}")) if isinstance(value, str) else value


def split_last(messages: Any, field: str) -> tuple[list[Any], Any]:
    """The messages before the last, and the last. Raises BadRowError where these are not two."""
    if not isinstance(messages, list) or len(messages) < 2:
        raise BadRowError(
            f"field {field!r} must be a conversation, at least a question and its answer: {messages!r:.60}"
        )
    return messages[:-1], messages[-1]


def own_system(config: PreferencesConfig, row: RowValue, unset: str | None) -> str | None:
    """The row's system text, None where it has none or an empty one.

    `unset` is its field where the config names none.
    """
    return given_system(config, row, unset) or None


def given_system(config: PreferencesConfig, row: RowValue, unset: str | None) -> str | None:
    """The row's system text, be it empty."""
    field = config.field_system or unset
    value = None if field is None else row.get(field)
    if value is not None and not isinstance(value, str):
        raise BadRowError(f"field {field!r} is not text but {value!r:.60}")
    return value


def text_of(message: Message) -> str:
    """The text of a message. Raises BadRowError where it has none."""
    content = message.get("content")
    if not isinstance(content, str):
        raise BadRowError(f"a message has no text: {message!r:.60}")
    return content
