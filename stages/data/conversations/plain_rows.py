"""Rows whose messages are a role and texts, read fast. What is odd is left to the reader of messages."""

from collections.abc import Callable
from typing import Any

from tunemill.stages.data.conversations.example import RowValue
from tunemill.stages.data.conversations.messages import MessageReader
from tunemill.stages.data.conversations.thinking import split_thinking
from tunemill.stages.data.conversations.traces import Speaker, Thinks
from tunemill.stages.data.conversations.unwritten import FIELDS

# Who speaks, by the template's names of roles, and the texts: of each message its content, and its reasoning if any.
PlainRow = tuple[tuple[Speaker, ...], list[str]]


def plain_reader(reader: MessageReader) -> Callable[[RowValue], PlainRow | None]:
    """A function from a row to its roles and texts.

    None for rows that may be more than that, or bad: those that the reader has to look at.
    """
    config = reader.config
    plain = plain_messages(reader)

    def read(row: RowValue) -> PlainRow | None:
        messages = row.get(config.field_messages)
        if type(messages) is not list or not messages or row.get(config.field_tools) is not None:
            return None
        found = plain(messages)
        if found is None:
            return None
        roles, texts = found
        for system in (row.get(config.field_system), config.default_system_message):
            if system is not None and not has_text(system):
                return None
        with_system(reader, row.get(config.field_system), roles, texts)
        return (tuple(roles), texts) if roles else None

    return read


def plain_messages(reader: MessageReader) -> Callable[[list[Any]], tuple[list[Speaker], list[str]] | None]:
    """A function from messages to their roles and texts; None where one of them may have or say more than that."""
    config, names, splits = reader.config, reader.role_names, reader.config.split_thinking
    role_field, text_field = reader.mappings["role"], reader.mappings["content"]
    told = (config.message_field_training, config.message_field_training_detail)
    read = {*reader.names, *reader.mappings.values(), *FIELDS, *filter(None, told)} - {role_field, text_field}
    shown = config.template_thinking_key in reader.names
    thought_field = reader.mappings[config.template_thinking_key] if shown else None

    def plain(messages: list[Any]) -> tuple[list[Speaker], list[str]] | None:
        roles: list[Speaker] = []
        texts: list[str] = []
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
            role = names[role]
            if splits and role == "assistant" and split_thinking(text) is not None:
                return None
            texts.append(text)
            more = (
                [name for name in message.keys() & read if message[name] is not None]
                if len(message) > 2
                else []
            )
            if more:
                if more != [thought_field] or role == "system" or not has_text(message[thought_field]):
                    return None
                texts.append(message[thought_field])
                role = Thinks(role)
            roles.append(role)
        return roles, texts

    one = len({role_field, text_field, thought_field}) == 3
    return plain if one else lambda _: None


def with_system(reader: MessageReader, system: str | None, roles: list[Speaker], texts: list[str]) -> None:
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
