"""Which question the answers of a preference row answer: one and the same, with one message of the assistant each.

Either answer may come with the conversation before it, or alone beside a question of the row. What does not agree is
a bad row: a worse answer to another question, or one turn against several, would teach something that nobody meant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunemill.stages.data.conversations.example import BadRowError, Message, RowValue
from tunemill.stages.data.conversations.json_in_text import parsed
from tunemill.stages.data.conversations.messages import TurnSource
from tunemill.stages.data.conversations.prompts import GIVEN
from tunemill.stages.data.preferences.conversation import ConversationReader
from tunemill.stages.data.rows.nulls import without_nulls

SHOWN = 40


@dataclass(frozen=True)
class Dialogue:
    """`history`: the messages to be answered, in the data's own words, which are those of `field`; and the answers."""

    history: list[Any]
    field: str
    answers: list[TurnSource]


@dataclass(frozen=True)
class _Side:
    """One answer with the messages before it, if it has any, as the data says them and as they are read."""

    field: str
    messages: list[Any]
    turns: list[TurnSource]

    @property
    def before(self) -> list[Message]:
        """What is to be answered, to be compared."""
        return [comparable(turn) for turn in self.turns[:-1]]


def dialogue(
    conversation: ConversationReader,
    sides: Mapping[str, Any],
    messages: tuple[str, list[Any]] | None = None,
    question: tuple[str, str] | None = None,
) -> Dialogue:
    """What `sides` (field -> its messages, the answer last) have in common, and the answer that each ends with.

    `messages` are a field and the conversation to be answered; `question` is a field and the text of the user's only
    message, or of one of them where the sides have longer conversations. Without either all sides have their own.
    Raises BadRowError, each rule with its own reason.
    """
    read = [_side(conversation, field, value) for field, value in sides.items()]
    given = messages
    if given is None and question is not None and all(len(side.turns) == 1 for side in read):
        given = question[0], [conversation.message("user", question[1])]
    if given is not None:
        asked = [comparable(turn) for turn in _kept(conversation, given[1], given[0])[1]]
        for side in read:
            _check_repeated(side, given[0], asked)
        return Dialogue(given[1], given[0], [side.turns[-1] for side in read])
    own = [side for side in read if len(side.turns) > 1]
    for side in read:
        if side not in own and question is None:
            raise BadRowError(
                f"field {side.field!r} must be a conversation, at least a question and its answer: "
                f"{side.messages!r:.60}"
            )
    first = own[0]
    for side in own[1:]:
        if side.before != first.before:
            raise BadRowError(_difference(first, side))
    if question is not None:
        _check_question(first, *question)
    return Dialogue(first.messages[:-1], first.field, [side.turns[-1] for side in read])


def messages_of(
    conversation: ConversationReader, row: RowValue, field: str, *, as_json: bool = False
) -> list[Any]:
    """The messages in a field of an answer: a list, one message, or a text. `as_json`: a text is messages in JSON."""
    value = row.get(field)
    if value is None:
        raise BadRowError(f"no answer in field {field!r}; the row has {sorted(row)}")
    if isinstance(value, str):
        value = (
            without_nulls(parsed(value, f"field {field!r}"))
            if as_json
            else conversation.message("assistant", value)
        )
    if value == []:
        raise BadRowError(f"no answer in field {field!r}: its list is empty")
    return value if isinstance(value, list) else [value]


def comparable(turn: TurnSource) -> Message:
    """A message without the white space around its texts, which templates trim."""
    return {name: v.strip() if isinstance(v, str) else v for name, v in turn.value.items()}


def _side(conversation: ConversationReader, field: str, value: Any) -> _Side:
    """Raises BadRowError where the last message is no answer."""
    messages, turns = _kept(conversation, value, field)
    role = turns[-1].role
    if role not in conversation.answering:
        hint = (
            ""
            if role in GIVEN
            else f"; if {role!r} is the assistant, say so under roles: (assistant: [{role}])"
        )
        raise BadRowError(
            f"field {field!r} ends with a message of the role {role!r}, and an answer is the assistant's{hint}"
        )
    return _Side(field, messages, turns)


def _kept(
    conversation: ConversationReader, messages: list[Any], field: str
) -> tuple[list[Any], list[TurnSource]]:
    """Messages and what is read of them, without a system message where the config drops it."""
    turns = conversation.read(messages, field)
    first = int(
        conversation.before.config.drop_system_message and len(turns) > 1 and turns[0].role == "system"
    )
    return messages[first:], turns[first:]


def _check_repeated(side: _Side, field: str, asked: Sequence[Message]) -> None:
    """What stands before an answer may repeat what is asked, or its end, and say nothing else; nor may that answer."""
    if asked and asked[-1] == comparable(side.turns[-1]):
        raise BadRowError(
            f"field {field!r} ends with the answer of field {side.field!r}; it must end with what is to be answered"
        )
    before = side.before
    if not before or before == list(asked[-len(before) :]):
        return
    if before[0].get("role") == "system" and (not asked or asked[0] != before[0]):
        raise BadRowError(
            f"field {side.field!r} begins with a system message that field {field!r} does not have"
        )
    raise BadRowError(
        f"field {side.field!r} has {counted(len(before))} before its last one, which field {field!r} does not end "
        "with: an answer is one message, behind the conversation that it answers or alone"
    )


def _check_question(side: _Side, field: str, text: str) -> None:
    asked = [turn["content"] for turn in side.before if turn["role"] == "user" and "content" in turn]
    if text.strip() not in asked:
        raise BadRowError(
            f"field {field!r} asks {text!r:.{SHOWN}}, and field {side.field!r} answers another question: "
            f"{asked[-1] if asked else 'none'!r:.{SHOWN}}"
        )


def _difference(one: _Side, other: _Side) -> str:
    """Why the conversations before two answers are not the same."""
    systems = [side.turns[0].role == "system" for side in (one, other)]
    if systems[0] != systems[1]:
        has, lacks = (one, other) if systems[0] else (other, one)
        return f"field {has.field!r} begins with a system message and field {lacks.field!r} does not"
    turns = [[comparable(turn) for turn in side.turns] for side in (one, other)]
    place = next(
        i for i, (a, b) in enumerate(zip(*turns, strict=False)) if a != b or i + 1 in map(len, turns)
    )
    roles = [side.turns[place].role for side in (one, other)]
    if roles[0] == roles[1] and roles[0] in GIVEN:
        shown = [f"{turn[place].get('content')!r:.{SHOWN}}" for turn in turns]
        return (
            f"fields {one.field!r} and {other.field!r} answer different conversations: message {place + 1} of the "
            f"{roles[0]} is {shown[0]} in one and {shown[1]} in the other"
        )
    left = [len(side.turns) - place for side in (one, other)]
    return (
        f"behind the {counted(place)} that they have in common, field {one.field!r} has {counted(left[0])} and field "
        f"{other.field!r} {counted(left[1])}: an answer is one message"
    )


def counted(messages: int) -> str:
    """A number of messages, in words."""
    return "1 message" if messages == 1 else f"{messages} messages"
