"""A row's conversation as the chat template wants it, and what the row says about training on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from tunemill.stages.data.conversations.content_parts import (
    chunks,
    has_flags,
    joined_parts,
    read_details,
    read_flag,
)
from tunemill.stages.data.conversations.example import BadRowError, Message, Part, RowValue
from tunemill.stages.data.conversations.json_in_text import parsed
from tunemill.stages.data.conversations.keys import REASONING, ConversationKeys
from tunemill.stages.data.conversations.template_environment import names_read
from tunemill.stages.data.conversations.thinking import split_thinking
from tunemill.stages.data.conversations.traces import Speaker, Thinks
from tunemill.stages.data.conversations.unwritten import FIELDS, says_something
from tunemill.stages.data.rows.nulls import ARGUMENTS, PARAMETERS, without_nulls
from tunemill.stages.errors import SettingError

DEFAULT_ROLES = {
    "user": ["human", "user"],
    "assistant": ["gpt", "assistant"],
    "system": ["system"],
    "tool": ["tool"],
}
# How alike an unknown role and a known one must be to be taken for a slip.
SLIP = 0.8


@dataclass(frozen=True)
class TurnSource:
    """One message. `plain`: a text is its content, and nothing else in it is read by the template.

    `details` are, by property, the ranges that are trained on or not, in characters of that property. `unread`: its
    fields of a reasoning or of calls that the template does not get.
    """

    value: Message
    plain: bool
    trained: bool
    details: Mapping[str, tuple[Part, ...]]
    unread: tuple[str, ...] = ()

    @property
    def role(self) -> str:
        return str(self.value.get("role", ""))


@dataclass(frozen=True)
class MessageReader:
    """How one dataset's messages are read.

    `mappings`: the template's name of a property -> the data's. `role_names`: the data's name of a role -> the
    template's. `names` is what the template reads. `keeps_parts`: contents that are lists of parts stay
    such, unless a part has a flag.
    """

    config: ConversationKeys
    names: frozenset[str]
    mappings: Mapping[str, str]
    role_names: Mapping[str, str]
    trained_roles: frozenset[str]
    keeps_parts: bool = False

    def turns(self, row: RowValue) -> list[TurnSource]:
        """Raises BadRowError naming the message."""
        turns = [self._turn(number, message) for number, message in enumerate(self._messages(row), 1)]
        system = row.get(self.config.field_system)
        if system is not None and turns[0].role != "system":
            turns.insert(0, self._system(system, f"field {self.config.field_system!r}"))
        if self.config.drop_system_message and turns[0].role == "system":
            del turns[0]
        default = self.config.default_system_message
        if default is not None and (not turns or turns[0].role != "system"):
            turns.insert(0, self._system(default, "default_system_message"))
        if not turns:
            raise BadRowError("nothing is left of the conversation without its system message")
        return turns

    def plain_turns(self, speakers: Sequence[Speaker], texts: Sequence[str]) -> list[TurnSource]:
        """Messages that are a role, by the template's name of it, a content and perhaps a reasoning."""
        rest = iter(texts)
        turns = []
        for speaker in speakers:
            thinks = isinstance(speaker, Thinks)
            role = speaker.role if isinstance(speaker, Thinks) else speaker
            value = {"role": role, "content": next(rest)}
            value |= {self.config.template_thinking_key: next(rest)} if thinks else {}
            turns.append(TurnSource(value, not thinks, self._trains(role), {}))
        return turns

    def _trains(self, role: str) -> bool:
        return self.config.train_on_inputs or role in self.trained_roles

    def tools(self, row: RowValue) -> list[Any] | None:
        """The tools that the template describes; tools and their parameters may be stored as JSON text."""
        where = f"field {self.config.field_tools!r}"
        given = row.get(self.config.field_tools)
        tools = without_nulls(read_json(given, where)) if isinstance(given, str) else given
        if is_nothing(tools):
            return None
        if not isinstance(tools, list):
            raise BadRowError(f"{where} must be a list of tools: {tools!r:.60}")
        return [self._tool(tool, f"{where}: tool {number}") for number, tool in enumerate(tools, 1)]

    def _tool(self, tool: Any, where: str) -> Any:
        tool = without_nulls(read_json(tool, where)) if isinstance(tool, str) else tool
        if not isinstance(tool, dict):
            raise BadRowError(f"{where} is not an object: {tool!r:.60}")
        function = _function(tool, f"{where}: its function")
        if isinstance(function, dict):
            return {**tool, "function": _with_parameters(function, where)}
        return _with_parameters(tool, where) if function is None else tool

    def _messages(self, row: RowValue) -> list[Any]:
        field = self.config.field_messages
        messages = row.get(field)
        if messages is None:
            raise BadRowError(f"no field {field!r}; the row has {sorted(row)}")
        if isinstance(messages, str):
            messages = without_nulls(parsed(messages, f"field {field!r}"))
        if not isinstance(messages, list) or not messages:
            raise BadRowError(f"field {field!r} must be a list of messages: {messages!r:.60}")
        return messages

    def _system(self, text: Any, where: str) -> TurnSource:
        return self._finish(where, {"role": "system", "content": text}, {})

    def _turn(self, number: int, message: Any) -> TurnSource:
        where = f"message {number}"
        if not isinstance(message, dict):
            raise BadRowError(f"{where} is not an object: {message!r:.60}")
        value = {
            name: message[field] for name, field in self.mappings.items() if message.get(field) is not None
        }
        if "role" not in value:
            raise BadRowError(f"{where} has no {self.mappings['role']!r}; it has {sorted(message)}")
        value["role"] = self._role(where, value["role"])
        taken = self.mappings.values()
        for field, given in message.items():
            if field not in value and given is not None and field in self.names and field not in taken:
                value[field] = given
        if "tool_calls" in value:
            calls = tool_calls(value.pop("tool_calls"), where)
            value |= {"tool_calls": calls} if calls else {}
        return self._finish(where, value, message)

    def _role(self, where: str, given: Any) -> str:
        """The template's name of a role. One that nobody has named is the template's business, except a slip."""
        if not isinstance(given, str):
            raise BadRowError(f"{where}: its role is not text but {given!r:.60}")
        known = self.role_names.get(given)
        if known is not None:
            return known
        meant = slip(given, tuple(self.role_names))
        if meant is not None:
            raise BadRowError(
                f"{where} has the role {given!r}; if {meant!r} is meant, mend it or add {given!r} to the names of "
                f"{self.role_names[meant]!r} under roles:"
            )
        return given

    def _finish(self, where: str, value: Message, message: Mapping[str, Any]) -> TurnSource:
        flag, offsets = self._flags(where, message)
        trained = flag if flag is not None else self._trains(value["role"])
        whole = value.get("content")
        if self.config.split_thinking and value["role"] == "assistant" and isinstance(whole, str):
            self._split(value, whole)
        details = self._texts(where, value, trained)
        if offsets is not None and details:
            raise BadRowError(f"{where}: its content parts and its details both say what is trained on")
        if offsets is not None and value.get("content") != whole and isinstance(whole, str):
            raise BadRowError(
                f"{where}: split_thinking takes its content apart, so its training details point at other "
                f"characters; store the reasoning in {self.config.field_thinking!r} instead"
            )
        if flag is None:
            flagged = any(part.trained for parts in details.values() for part in parts)
            trained = bool(offsets) if offsets is not None else trained or flagged
        if offsets:
            details = {"content": offsets}
        extras = (name for name in value if name not in ("role", "content"))
        plain = "content" in value and not any(name in self.names for name in extras)
        return TurnSource(value, plain, trained, details, self._unread(value, message))

    def _unread(self, value: Message, message: Mapping[str, Any]) -> tuple[str, ...]:
        read = {*value, *self.mappings.values()}
        return tuple(field for field in FIELDS if field not in read and says_something(message.get(field)))

    def _split(self, value: Message, content: str) -> None:
        split = split_thinking(content)
        if split is not None:
            value[self.config.template_thinking_key], value["content"] = split

    def _texts(self, where: str, value: Message, inherited: bool) -> dict[str, tuple[Part, ...]]:
        """Join the parts of content and reasoning in place. Their ranges, of both where one has any."""
        found: dict[str, tuple[Part, ...]] = {}
        for name in ("content", self.config.template_thinking_key):
            text = value.get(name)
            if isinstance(text, list) and self.keeps_parts and name == "content" and not has_flags(text):
                value[name] = chunks(text, f"{where}: {self.mappings[name]!r}")
            elif isinstance(text, list):
                field = self.mappings.get(name, name)
                value[name], parts = joined_parts(text, f"{where}: {field!r}", inherited)
                found |= {name: parts} if parts else {}
            elif text is not None and not isinstance(text, str):
                field = self.mappings.get(name, name)
                raise BadRowError(f"{where}: {field!r} is neither text nor a list of parts: {text!r:.60}")
        if set(value) == {"role"}:
            raise BadRowError(f"{where} has no {self.mappings['content']!r}")
        if not found:
            return {}
        whole = {name: value.get(name) or "" for name in ("content", self.config.template_thinking_key)}
        return {
            name: found.get(name) or (Part(0, len(text), inherited),) for name, text in whole.items() if text
        }

    def _flags(self, where: str, message: Mapping[str, Any]) -> tuple[bool | None, tuple[Part, ...] | None]:
        """Whether the message says that it is trained on, and the ranges of characters, if it has such."""
        details_field = self.config.message_field_training_detail
        flag_field = self.config.message_field_training
        given = message.get(details_field) if details_field else None
        flag = message.get(flag_field) if flag_field else None
        return (
            None if flag is None else read_flag(flag, f"{where}: {flag_field!r}"),
            None if given is None else read_details(given, where),
        )


def message_reader(config: ConversationKeys, template: str) -> MessageReader:
    """How the messages of a conversation are read: property names, role names, which roles are trained.

    Raises SettingError for a template that is not Jinja, or that does not show the reasoning it is to show.
    """
    names = names_read(template)
    check_thinking(config, names)
    return reader_of(config, names)


def reader_of(config: ConversationKeys, names: frozenset[str], keeps_parts: bool = False) -> MessageReader:
    """How the messages of a conversation are read, where these are the properties of them that are."""
    named = {"role": config.message_field_role, "content": config.message_field_content}
    mappings = {
        "role": "role",
        "content": "content",
        config.template_thinking_key: config.field_thinking,
        **config.message_property_mappings,
        **{name: field for name, field in named.items() if field is not None},
    }
    roles = config.roles or DEFAULT_ROLES
    role_names = {name: name for name in (*DEFAULT_ROLES, *roles, *config.roles_to_train)}
    role_names |= {name: role for role, sources in roles.items() for name in sources}
    trained = frozenset(role_names[role] for role in config.roles_to_train)
    return MessageReader(config, names, mappings, role_names, trained, keeps_parts)


def check_thinking(config: ConversationKeys, names: frozenset[str]) -> None:
    """Raises SettingError where reasoning is set up and the template, which reads `names`, does not show it."""
    given = {
        "split_thinking": config.split_thinking,
        "field_thinking": config.field_thinking != REASONING,
        "template_thinking_key": config.template_thinking_key != REASONING,
    }
    if not any(given.values()) or config.template_thinking_key in names:
        return
    raise SettingError(
        f"{next(key for key in given if given[key])}: the chat template shows no {config.template_thinking_key!r} of a "
        "message, so the reasoning would be lost. Choose a template that does (such as qwen3), or name in "
        "template_thinking_key what the template calls it"
    )


@lru_cache(maxsize=1024)
def slip(given: str, known: tuple[str, ...]) -> str | None:
    """The known role that a given one looks like, if it does."""
    near = get_close_matches(given.strip().lower(), known, n=1, cutoff=SLIP)
    return near[0] if near else None


def tool_calls(given: Any, where: str) -> list[Any]:
    """Tool calls, each with its arguments as an object; calls and arguments may be stored as JSON text.

    Raises BadRowError.
    """
    calls = read_json(given, f"{where}: 'tool_calls'")
    if is_nothing(calls):
        return []
    if not isinstance(calls, list):
        raise BadRowError(f"{where}: 'tool_calls' is not a list of calls: {calls!r:.60}")
    if calls is not given:
        calls = without_nulls(calls)
    return [_call(call, where, number) for number, call in enumerate(calls, 1)]


def _call(given: Any, where: str, number: int) -> Any:
    call = given
    if isinstance(given, str):
        call = without_nulls(parsed(given, f"{where}: tool call {number}"))
    if not isinstance(call, dict):
        raise BadRowError(f"{where}: tool call {number} is not an object: {call!r:.60}")
    function = _function(call, f"{where}: the function of tool call {number}")
    if isinstance(function, dict):
        return {**call, "function": _with_arguments(function, where, number)}
    # Many templates take a call without `function` around its name too.
    return _with_arguments(call, where, number) if "name" in call and function is None else call


def _function(given: dict[str, Any], where: str) -> Any:
    """What a tool or a call has as `function`, which may be JSON text; a text that is a mere name stays."""
    function = given.get("function")
    if isinstance(function, str) and function.lstrip().startswith("{"):
        return without_nulls(parsed(function, where))
    if function is not None and not isinstance(function, str | dict):
        raise BadRowError(f"{where} is not an object: {function!r:.60}")
    return function


def _with_parameters(function: dict[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(function.get(PARAMETERS), str):
        return function
    given = read_json(function[PARAMETERS], f"{where}: its parameters")
    return {**function, PARAMETERS: {} if is_nothing(given) else given}


def _with_arguments(function: dict[str, Any], where: str, number: int) -> dict[str, Any]:
    """A call's function with its arguments as `arguments`. Some data call them `parameters`, as Llama does."""
    if PARAMETERS in function and not says_something(function.get(ARGUMENTS)):
        given = {key: value for key, value in function.items() if key != ARGUMENTS}
        function = {ARGUMENTS if key == PARAMETERS else key: value for key, value in given.items()}
    arguments = read_json(function.get(ARGUMENTS), f"{where}: the arguments of tool call {number}")
    return {**function, ARGUMENTS: {} if is_nothing(arguments) else arguments}


def is_nothing(value: Any) -> bool:
    """Whether a value of JSON stands for nothing at all."""
    return value is None or value == []


def read_json(value: Any, where: str) -> Any:
    """A value that may be stored as JSON text; an empty text is None. Raises BadRowError."""
    if not isinstance(value, str):
        return value
    return parsed(value, where) if value.strip() else None
