"""A row's conversation as the chat template wants it, and what the row says about training on it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunemill.stages.tokenized.config import TokenizedConfig
from tunemill.stages.tokenized.example import BadRowError, Message, Part, RowValue

DEFAULT_ROLES = {
    "user": ["human", "user"],
    "assistant": ["gpt", "assistant"],
    "system": ["system"],
    "tool": ["tool"],
}
TEXT_KEYS = ("text", "content", "value")


@dataclass(frozen=True)
class TurnSource:
    """One message. `plain`: a text is its content, and nothing else in it is read by the template.

    `details` are in characters of the content.
    """

    value: Message
    plain: bool
    trained: bool
    details: tuple[Part, ...] | None

    @property
    def role(self) -> str:
        return str(self.value.get("role", ""))


@dataclass(frozen=True)
class MessageReader:
    """How one dataset's messages are read; `template` tells which further properties matter."""

    config: TokenizedConfig
    template: str
    mappings: Mapping[str, str]
    role_names: Mapping[str, str]
    trained_roles: frozenset[str]

    def turns(self, row: RowValue) -> list[TurnSource]:
        """Raises BadRowError naming the message."""
        messages = row.get(self.config.field_messages)
        if messages is None:
            raise BadRowError(f"no field {self.config.field_messages!r}; the row has {sorted(row)}")
        if not isinstance(messages, list) or not messages:
            raise BadRowError(
                f"field {self.config.field_messages!r} must be a list of messages: {messages!r:.60}"
            )
        turns = [self._turn(number, message) for number, message in enumerate(messages, 1)]
        system = row.get(self.config.field_system)
        if system is not None and turns[0].role != "system":
            turns.insert(0, self._system(system))
        if self.config.drop_system_message and turns[0].role == "system":
            del turns[0]
        default = self.config.default_system_message
        if default is not None and (not turns or turns[0].role != "system"):
            turns.insert(0, self._system(default))
        if not turns:
            raise BadRowError("nothing is left of the conversation without its system message")
        return turns

    def tools(self, row: RowValue) -> list[Any] | None:
        """The tools that the template describes; arguments given as JSON text are parsed."""
        tools = row.get(self.config.field_tools)
        if isinstance(tools, str):
            tools = parsed(tools, f"field {self.config.field_tools!r}")
        if tools is None:
            return None
        if not isinstance(tools, list):
            raise BadRowError(f"field {self.config.field_tools!r} must be a list of tools: {tools!r:.60}")
        return [with_parsed(tool, "parameters", "the tool's parameters") for tool in tools] or None

    def _system(self, text: Any) -> TurnSource:
        return self._finish(
            "field " + repr(self.config.field_system), {"role": "system", "content": text}, {}
        )

    def _turn(self, number: int, message: Any) -> TurnSource:
        where = f"message {number}"
        if not isinstance(message, dict):
            raise BadRowError(f"{where} is not an object: {message!r:.60}")
        value = {
            name: message[field] for name, field in self.mappings.items() if message.get(field) is not None
        }
        role = value.get("role")
        if role is None:
            raise BadRowError(f"{where} has no {self.mappings['role']!r}; it has {sorted(message)}")
        if not isinstance(role, str) or role not in self.role_names:
            known = ", ".join(sorted(self.role_names))
            raise BadRowError(
                f"{where} has the unknown role {role!r}; known are {known}; name it under roles:"
            )
        value["role"] = self.role_names[role]
        taken = set(self.mappings.values())
        for field, given in message.items():
            if field not in taken and field not in value and given is not None and field in self.template:
                value[field] = given
        if "tool_calls" in value:
            value["tool_calls"] = tool_calls(value["tool_calls"], where)
        return self._finish(where, value, message)

    def _finish(self, where: str, value: Message, message: Mapping[str, Any]) -> TurnSource:
        trained, details = self._flags(where, message, str(value["role"]))
        content = value.get("content")
        if isinstance(content, list):
            value["content"], parts = joined_parts(content, where, trained)
            if parts and details:
                raise BadRowError(f"{where}: its content parts and its details both say what is trained on")
            details = parts or details
            trained = trained or any(part.trained for part in parts)
        elif content is not None and not isinstance(content, str):
            raise BadRowError(f"{where}: content is neither text nor a list of parts: {content!r:.60}")
        elif content is None and set(value) == {"role"}:
            raise BadRowError(f"{where} has no {self.mappings['content']!r}; it has {sorted(message)}")
        plain = "content" in value and not any(
            name not in ("role", "content") and name in self.template for name in value
        )
        return TurnSource(value, plain, trained, details)

    def _flags(
        self, where: str, message: Mapping[str, Any], role: str
    ) -> tuple[bool, tuple[Part, ...] | None]:
        """Whether the message is trained on, and the ranges of characters, if it has such."""
        details_field, flag_field = (
            self.config.message_field_training_detail,
            self.config.message_field_training,
        )
        given = message.get(details_field) if details_field else None
        details = None if given is None else read_details(given, where)
        flag = message.get(flag_field) if flag_field else None
        if flag is not None:
            return read_flag(flag, f"{where}: {flag_field!r}"), details or None
        if details is not None:
            return bool(details), details or None
        return self.config.train_on_inputs or role in self.trained_roles, None


def message_reader(config: TokenizedConfig, template: str) -> MessageReader:
    """How the messages of a conversation are read: property names, role names, which roles are trained."""
    mappings = {"role": "role", "content": "content", **config.message_property_mappings}
    if config.message_field_role is not None:
        mappings["role"] = config.message_field_role
    if config.message_field_content is not None:
        mappings["content"] = config.message_field_content
    roles = DEFAULT_ROLES if config.roles is None else config.roles
    names = {name: name for name in (*DEFAULT_ROLES, *roles, *config.roles_to_train)}
    names |= {name: role for role, sources in roles.items() for name in sources}
    trained = frozenset(names[role] for role in config.roles_to_train)
    return MessageReader(config, template, mappings, names, trained)


def joined_parts(content: Sequence[Any], where: str, inherited: bool) -> tuple[str, tuple[Part, ...]]:
    """The parts' texts joined; and the parts, unless none has a flag of its own."""
    texts: list[str] = []
    parts: list[Part] = []
    position = 0
    flagged = False
    for part in content:
        text, flag = read_part(part, where)
        parts.append(Part(position, position + len(text), inherited if flag is None else flag))
        texts.append(text)
        position += len(text)
        flagged = flagged or flag is not None
    return "".join(texts), tuple(parts) if flagged else ()


def read_part(part: Any, where: str) -> tuple[str, bool | None]:
    """Text of a content part, and whether it says of itself that it is trained."""
    if isinstance(part, str):
        return part, None
    if not isinstance(part, dict):
        raise BadRowError(f"{where}: a part of its content is neither text nor an object: {part!r:.60}")
    if part.get("type", "text") != "text":
        raise BadRowError(
            f"{where}: a content part of type {part['type']!r} is not supported yet; only text is"
        )
    text = next((part[key] for key in TEXT_KEYS if isinstance(part.get(key), str)), None)
    if text is None:
        raise BadRowError(f"{where}: a part of its content has no text: {part!r:.60}")
    flag = part.get("train") if part.get("train") is not None else part.get("weight")
    return text, None if flag is None else read_flag(flag, f"{where}: a content part's flag")


def read_flag(value: Any, where: str) -> bool:
    """A training flag. Raises BadRowError for anything but true and false."""
    if value in (0, 1):
        return bool(value)
    raise BadRowError(f"{where} must be true or false, not {value!r:.60}")


def read_details(value: Any, where: str) -> tuple[Part, ...]:
    """Ranges of characters; `end_offset` names the last one, `Part.end` the one after it."""
    try:
        return tuple(
            Part(int(item["begin_offset"]), int(item["end_offset"]) + 1, bool(item["train"]))
            for item in value
        )
    except (TypeError, KeyError, ValueError):
        raise BadRowError(
            f"{where}: training details must be a list of objects with begin_offset, end_offset and train, "
            f"not {value!r:.60}"
        ) from None


def tool_calls(calls: Any, where: str) -> Any:
    """Tool calls with their arguments parsed, where they are stored as text."""
    if not isinstance(calls, list):
        return calls
    return [with_parsed(call, "arguments", f"{where}: a tool call's arguments") for call in calls]


def with_parsed(item: Any, key: str, where: str) -> Any:
    """`item` with `function.<key>` parsed, where that is JSON text."""
    function = item.get("function") if isinstance(item, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get(key), str):
        return item
    return {**item, "function": {**function, key: parsed(function[key], where)}}


def parsed(text: str, where: str) -> Any:
    """JSON that is stored as text. Raises BadRowError."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadRowError(f"{where} should be JSON: {error}") from None
