"""Messages of a preference row as the chat template wants them, read as those of conversations to train on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tunemill.stages.data.conversations.example import BadRowError, Message, RowValue
from tunemill.stages.data.conversations.keys import ConversationKeys
from tunemill.stages.data.conversations.messages import MessageReader, TurnSource, message_reader
from tunemill.stages.data.conversations.prompts import GIVEN
from tunemill.stages.data.preferences.config import PreferencesConfig

MESSAGES, SYSTEM = "messages", "system"


@dataclass(frozen=True)
class ConversationReader:
    """How messages are read: those before an answer, where a system message may be filled in, and all as they are.

    `answering` are the roles that answer.
    """

    before: MessageReader
    answers: MessageReader
    answering: frozenset[str]

    def history(self, messages: Sequence[Any], system: str | None, field: str) -> list[Message]:
        """What is to be answered. `system` is the first message where the messages have none of their own."""
        row: RowValue = {MESSAGES: list(messages)}
        if system is not None:
            row[SYSTEM] = system
        with in_field(field):
            return [turn.value for turn in self.before.turns(row)]

    def read(self, messages: Sequence[Any], field: str) -> list[TurnSource]:
        """Messages one by one, none left out or filled in. `field` is where they come from."""
        with in_field(field):
            return self.answers.turns({MESSAGES: list(messages)})

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
    named = set(config.roles or ()) - set(GIVEN)
    return ConversationReader(
        message_reader(before, template),
        message_reader(ConversationKeys(**common), template),
        frozenset({"assistant", *named}),
    )


@contextmanager
def in_field(field: str) -> Iterator[None]:
    """Errors of reading messages say which field these are in; numbers of messages count from there."""
    try:
        yield
    except BadRowError as error:
        raise BadRowError(f"field {field!r}: {error}") from None


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
