"""Formats whose prompts and answers are rendered by the chat template.

An answer is what the template makes of it behind some question, from its first character on. So the template's
end of turn belongs to it; what the template puts before an answer (such as an empty thinking block) does not,
unless the answer itself holds more than a text.
"""

from collections.abc import Callable
from typing import Any

from jinja2 import TemplateError

from tunemill.stages.data.conversations.example import BadRowError, Message, Render, RowValue, text_field
from tunemill.stages.data.conversations.messages import TurnSource
from tunemill.stages.data.preferences.config import PreferencesConfig
from tunemill.stages.data.preferences.conversation import (
    ConversationReader,
    as_messages,
    conversation_reader,
    given_system,
    own_system,
    split_last,
)
from tunemill.stages.data.preferences.records import Kit, Pair, Reader, Reward, Whole
from tunemill.stages.errors import SettingError

QUESTION: Message = {"role": "user", "content": "[[question]]"}
PROBE = "[[answer]]"


def default(config: PreferencesConfig, kit: Kit) -> Reader:
    """Rows of `messages` and two answers, each a message, a text or a conversation that ends with it."""
    conversation = conversation_reader(config, needed_template(kit))
    render, opened = refusing(config, kit.render), refusing(config, kit.render_opened)
    answer = answer_cutter(kit)

    def read(row: RowValue) -> Pair:
        messages = row.get(config.field_messages)
        if messages is None:
            raise BadRowError(f"no field {config.field_messages!r}; the row has {sorted(row)}")
        if isinstance(messages, str):
            messages = [conversation.message("user", messages)]
        if not isinstance(messages, list) or not messages:
            raise BadRowError(f"field {config.field_messages!r} must be a list of messages: {messages!r:.60}")
        history = conversation.history(messages, own_system(config, row, None), config.field_messages)
        turns = [
            one_answer(conversation, row, field) for field in (config.field_chosen, config.field_rejected)
        ]
        prompt = opened(history, conversation.tools(row))
        return Pair(prompt, *(answer(turn, render) for turn in turns))

    return read


def argilla_chat(config: PreferencesConfig, kit: Kit) -> Reader:
    """Rows of two conversations; what is before the last message of the chosen one is the prompt."""
    conversation = conversation_reader(config, needed_template(kit))
    render, opened = refusing(config, kit.render), refusing(config, kit.render_opened)
    answer = answer_cutter(kit)

    def read(row: RowValue) -> Pair:
        earlier, chosen = split_last(as_messages(row, config.field_chosen), config.field_chosen)
        _, rejected = split_last(as_messages(row, config.field_rejected), config.field_rejected)
        history = conversation.history(earlier, own_system(config, row, None), config.field_chosen)
        turns = [
            conversation.answer(chosen, config.field_chosen),
            conversation.answer(rejected, config.field_rejected),
        ]
        prompt = opened(history, conversation.tools(row))
        return Pair(prompt, *(answer(turn, render) for turn in turns))

    return read


def argilla(config: PreferencesConfig, kit: Kit) -> Reader:
    """As `argilla_chat`, for ORPO: an answer is all that the template adds to the prompt, to its last character.

    A `prompt` of a row is its question, where there is only one.
    """
    conversation = conversation_reader(config, needed_template(kit))
    render, opened = refusing(config, kit.render), refusing(config, kit.render_opened)

    def read(row: RowValue) -> Pair:
        earlier, chosen = split_last(as_messages(row, config.field_chosen), config.field_chosen)
        _, rejected = split_last(as_messages(row, config.field_rejected), config.field_rejected)
        if len(earlier) == 1 and isinstance(row.get("prompt"), str):
            earlier = [conversation.message("user", row["prompt"])]
        history = conversation.history(earlier, own_system(config, row, "system"), config.field_chosen)
        tools = conversation.tools(row)
        prompt = opened(history, tools)
        turns = [
            conversation.answer(chosen, config.field_chosen),
            conversation.answer(rejected, config.field_rejected),
        ]
        wholes = [render([*history, turn.value], tools) for turn in turns]
        return Pair(prompt, *(whole[common_length(prompt, whole) :] for whole in wholes))

    return read


def reward(config: PreferencesConfig, kit: Kit) -> Reader:
    """Rows of `input`, `chosen`, `rejected` and perhaps a system text; or of two whole conversations.

    An empty system text is a system message without text, as in conversations to train on.
    """
    conversation = conversation_reader(config, needed_template(kit))
    render, opened = refusing(config, kit.render), refusing(config, kit.render_opened)

    def read(row: RowValue) -> Reward:
        system, tools = given_system(config, row, "system"), conversation.tools(row)
        wholes = []
        for field in (config.field_chosen, config.field_rejected):
            if isinstance(row.get(field), list):
                earlier, last = split_last(row[field], field)
            else:
                earlier = [conversation.message("user", text_field(row, "input", required=True))]
                last = conversation.message("assistant", text_field(row, field, required=True))
            history = conversation.history(earlier, system, field)
            text, prompt = (
                render([*history, conversation.answer(last, field).value], tools),
                opened(history, tools),
            )
            wholes.append(Whole(text, prompt if text.startswith(prompt) else ""))
        return Reward(wholes[0], wholes[1], bos=False)

    return read


def needed_template(kit: Kit) -> str:
    """Raises SettingError where there is no chat template."""
    if kit.template is None:
        raise SettingError(
            "this type needs a chat template and the tokenizer has none; set chat_template: chatml, or give one "
            "in chat_template_jinja"
        )
    return kit.template


def refusing(config: PreferencesConfig, render: Render) -> Render:
    """The same, raising BadRowError where the template refuses a row."""
    template = config.chat_template or config.template_name
    name = "the chat template" if template is None else f"the chat template {template}"

    def guarded(messages: list[Message], tools: list[Any] | None) -> str:
        try:
            return render(messages, tools)
        except (TemplateError, TypeError) as error:
            raise BadRowError(f"{name} refuses the row: {error}") from None

    return guarded


def one_answer(conversation: ConversationReader, row: RowValue, field: str) -> TurnSource:
    """The answer in a field: a message, a text, or the last message of a list."""
    value = row.get(field)
    if value is None or value == []:
        raise BadRowError(f"no answer in field {field!r}; the row has {sorted(row)}")
    if isinstance(value, str):
        value = conversation.message("assistant", value)
    return conversation.answer(value[-1] if isinstance(value, list) else value, field)


def answer_cutter(kit: Kit) -> Callable[[TurnSource, Render], str]:
    """A function from an answer and the renderer to the answer's own part of the text, with its end of turn."""
    opened, head = openings(kit)

    def cut(turn: TurnSource, render: Render) -> str:
        text = render([QUESTION, turn.value], None)
        if turn.plain and head is not None and text.startswith(head):
            return text[len(head) :].rstrip()
        start = common_length(opened, text)
        if turn.plain:
            start = max(start, text.find(turn.value["content"].strip(), start))
        return text[start:].rstrip()

    return cut


def openings(kit: Kit) -> tuple[str, str | None]:
    """What stands before any answer to QUESTION: for a model to go on from, and in a rendered conversation."""
    try:
        opened = kit.render_opened([QUESTION], None)
        probed = kit.render([QUESTION, {"role": "assistant", "content": PROBE}], None)
    except (TemplateError, TypeError):
        # It will refuse the rows too, and then there is one to name.
        return "", None
    start = probed.find(PROBE)
    return opened, probed[:start] if start >= 0 else None


def common_length(one: str, other: str) -> int:
    """How many characters two texts have in common, from the start."""
    if other.startswith(one):
        return len(one)
    return next(i for i, (a, b) in enumerate(zip(one, other + "\0", strict=False)) if a != b)
