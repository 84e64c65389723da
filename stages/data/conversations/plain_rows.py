"""Rows whose messages are a role and a text, read fast. What is odd is left to the reader of messages."""

from collections.abc import Callable
from typing import Any

from tunemill.stages.data.conversations.example import RowValue
from tunemill.stages.data.conversations.messages import MessageReader
from tunemill.stages.data.conversations.thinking import split_thinking

# The roles, as the template calls them, and the texts of messages.
PlainRow = tuple[tuple[str, ...], list[str]]


def plain_reader(reader: MessageReader) -> Callable[[RowValue], PlainRow | None]:
    """A function from a row to its roles and texts.

    None for rows that may be more than that, or bad: those that the reader has to look at.
    """
    config = reader.config
    plain = plain_messages(reader)

    def read(row: RowValue) -> PlainRow | None:
        messages = row.get(config.field_messages)
        if type(messages) is not list or row.get(config.field_tools) is not None:
            return None
        found = plain(messages)
        if found is None:
            return None
        roles, texts = found
        for system in (row.get(config.field_system), config.default_system_message):
            if system is not None and not has_text(system):
                return None
        with_system(reader, row.get(config.field_system), roles, texts)
        if not roles or (config.split_thinking and any(map(has_thought, roles, texts))):
            return None
        return tuple(roles), texts

    return read


def plain_messages(reader: MessageReader) -> Callable[[list[Any]], tuple[list[str], list[str]] | None]:
    """A function from messages to their roles and texts; None where one of them may have or say more than that."""
    config, names = reader.config, reader.role_names
    role_field, text_field = reader.mappings["role"], reader.mappings["content"]
    told = (config.message_field_training, config.message_field_training_detail)
    read = {*reader.names, *reader.mappings.values(), *filter(None, told)} - {role_field, text_field}

    def plain(messages: list[Any]) -> tuple[list[str], list[str]] | None:
        roles, texts = [], []
        for message in messages:
            if type(message) is not dict:
                return None
            role, text = message.get(role_field), message.get(text_field)
            if (
                type(role) is not str
                or role not in names
                or type(text) is not str
                or not text
                or text.isspace()
            ):
                return None
            if len(message) > 2 and any(message.get(name) is not None for name in message.keys() & read):
                return None
            roles.append(names[role])
            texts.append(text)
        return roles, texts

    return plain if role_field != text_field else lambda _: None


def with_system(reader: MessageReader, system: str | None, roles: list[str], texts: list[str]) -> None:
    """Put in and take out the system message, in place, as the reader of messages does."""
    default = reader.config.default_system_message
    if system is not None and roles[:1] != ["system"]:
        roles.insert(0, "system")
        texts.insert(0, system)
    if reader.config.drop_system_message and roles[:1] == ["system"]:
        del roles[0], texts[0]
    if default is not None and roles[:1] != ["system"]:
        roles.insert(0, "system")
        texts.insert(0, default)


def has_text(value: Any) -> bool:
    """Whether it is a text that is more than white space."""
    return type(value) is str and bool(value) and not value.isspace()


def has_thought(role: str, text: str) -> bool:
    """Whether `split_thinking` takes a text apart."""
    return role == "assistant" and split_thinking(text) is not None
