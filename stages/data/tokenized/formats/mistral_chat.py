"""`type: chat_template` with `tokenizer_use_mistral_common`: conversations, rendered by mistral-common."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from tunemill.stages.data.conversations.example import (
    BadRowError,
    Example,
    Format,
    Kit,
    Message,
    Ranges,
    Rendered,
    RenderedTurn,
    RowValue,
    TokenConversation,
    TokenTurn,
)
from tunemill.stages.data.conversations.masks import TEMPLATE_ROLE, tokens_of_parts
from tunemill.stages.data.conversations.messages import TurnSource, reader_of
from tunemill.stages.data.tokenized.config import TokenizedConfig
from tunemill.stages.data.tokenized.formats.ends import ends_of
from tunemill.stages.errors import SettingError

# What mistral-common reads of a message, by its role.
PROPERTIES = {
    "system": ("content",),
    "user": ("content",),
    "assistant": ("content", "tool_calls"),
    "tool": ("content", "tool_call_id", "name"),
}
# Turns that are several messages' stand behind one another; of these roles mistral-common makes one of them.
JOINED = ("user", "assistant")


def mistral_chat(config: TokenizedConfig, kit: Kit) -> Format:
    """Raises SettingError when end tokens do not fit the tokenizer."""
    render = kit.render_tokens
    assert render is not None
    thinking = config.template_thinking_key
    names = frozenset({thinking, *(name for some in PROPERTIES.values() for name in some)})
    reader = reader_of(config, names, keeps_parts=True)

    def read(row: RowValue) -> Example:
        sources = reader.turns(row)
        messages = [message_of(source.value, thinking) for source in sources]
        return conversation(render(messages, reader.tools(row)), sources, kit)

    return Format(read, ends=ends_of(config, kit, control_id))


def message_of(value: Message, thinking: str) -> Message:
    """A message as mistral-common takes it: reasoning is a part of the content, before its texts."""
    kept = PROPERTIES.get(value["role"], ("content",))
    message = {"role": value["role"], **{name: value[name] for name in kept if name in value}}
    reasoning = value.get(thinking)
    if reasoning and value["role"] == "assistant":
        content = message.get("content") or []
        texts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        message["content"] = [{"type": "thinking", "thinking": reasoning}, *texts]
    return message


def conversation(rendered: Rendered, sources: Sequence[TurnSource], kit: Kit) -> TokenConversation:
    """The turns of a rendered conversation, each with what its messages say of it."""
    ids = list(rendered.start)
    turns = []
    for turn, source in matched(rendered.turns, sources):
        first, end = said(turn, rendered.control)
        position = len(ids)
        ids += turn.ids
        place = (position + first, position + end, len(ids))
        if source is None:
            turns.append(TokenTurn(TEMPLATE_ROLE, *place, trained=False))
            continue
        details = detailed(source, turn.ids[first:end], kit) if source.details else None
        moved = None if details is None else tuple(position + first + index for index in details)
        turns.append(TokenTurn(turn.role, *place, source.trained, moved))
    lost = sorted(name for source in sources for name in source.unread)
    return TokenConversation(ids, tuple(turns), tuple(lost))


def detailed(source: TurnSource, ids: Sequence[int], kit: Kit) -> list[int]:
    """Which of the tokens of a turn are in the trained parts of its texts.

    Raises BadRowError where the tokens of a text do not stand in the turn as they are, and once.
    """
    assert kit.offsets_of is not None
    found: list[int] = []
    for name, parts in source.details.items():
        text = source.value.get(name) or ""
        # mistral-common takes the spaces off the end of an answer.
        text = text.rstrip(" ") if name == "content" and source.role == "assistant" else text
        own, offsets = kit.offsets_of(text)
        places = [at for at in range(len(ids) - len(own) + 1) if list(ids[at : at + len(own)]) == own]
        if own and len(places) != 1:
            raise BadRowError(
                f"it cannot be told which tokens stand for which characters of {text!r:.60}, because mistral-common "
                "joins it with other text or writes it twice; train on this message as a whole"
            )
        whole = Ranges(0, len(text), parts)
        found += (
            [places[0] + index for index in tokens_of_parts(whole, [start for start, _ in offsets])]
            if own
            else []
        )
    return found


def said(turn: RenderedTurn, control: frozenset[int]) -> tuple[int, int]:
    """Where in a turn that stands which was said. An assistant says all of it but the end of the turn.

    Around other roles' texts stand control tokens, with what belongs to no message between the first of them: tools
    before a user's text, the id of the call before a tool's answer.
    """
    end = len(turn.ids)
    if end and turn.ids[-1] in control:
        end -= 1
    if turn.role == "assistant":
        return 0, end
    # Reasoning in a system message is said, and stands between control tokens too.
    inside = range(end) if turn.role in ("user", "tool") else range(min(end, 1))
    return max((index + 1 for index in inside if turn.ids[index] in control), default=0), end


def matched(
    turns: Sequence[RenderedTurn], sources: Sequence[TurnSource]
) -> Iterator[tuple[RenderedTurn, TurnSource | None]]:
    """Each turn with its message, or the first of its messages; None where it has none.

    mistral-common joins messages of one role, sorts tools' answers as they were called for, and in old versions puts
    the system text into a user's turn, an empty one where the conversation has no such turn at its beginning. Raises
    BadRowError where messages of one turn differ in whether they are trained on.
    """
    has_system_turns = any(turn.role == "system" for turn in turns)
    groups = [(role, list(group)) for role, group in groupby(sources, key=lambda source: source.role)]
    groups = [(role, group) for role, group in groups if role != "system" or has_system_turns]
    rest = iter(turns)
    if turns[0].role == "user" and (not groups or groups[0][0] not in ("user", "system")):
        yield next(rest), None
    for role, group in groups:
        if role in JOINED:
            group = [joined(role, group)]
        while group:
            turn = next(rest)
            assert turn.role == role, f"a turn of {turn.role} in place of {role}"
            source = next((one for one in group if one.value.get("tool_call_id") == turn.call_id), group[0])
            group.remove(source)
            yield turn, source
    assert next(rest, None) is None, "more turns than messages"


def joined(role: str, group: Sequence[TurnSource]) -> TurnSource:
    """The first of some messages that become one turn. Raises BadRowError where they differ in being trained on."""
    if len({source.trained for source in group}) > 1 or (
        len(group) > 1 and any(one.details for one in group)
    ):
        raise BadRowError(
            f"mistral-common makes one turn of {len(group)} messages of {role} behind one another, and only some of "
            "them, or parts of them, are trained on; give all of them the same flag"
        )
    return group[0]


def control_id(token: str, kit: Kit) -> int:
    """The id of a token of `eot_tokens`. Raises SettingError where it is no control token."""
    known: dict[str, int] = kit.tokenizer.get_added_vocab()
    if token not in known:
        raise SettingError(
            f"eot_tokens: {token!r} is no control token of this tekken.json, and no other token ends a turn. Leave "
            "eot_tokens out: mistral-common ends every answer with the EOS token"
        )
    return known[token]
