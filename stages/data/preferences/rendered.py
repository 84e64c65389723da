"""Formats whose prompts and answers are rendered by the chat template.

A prompt and an answer are one conversation, rendered whole and cut where the prompt ends (`cuts.py`). So what the
template puts before an answer, as an empty thinking block, and its end of turn belong to the answer.
"""

from typing import Any

from jinja2 import TemplateError

from tunemill.stages.data.conversations.example import BadRowError, Message, Render, RowValue, text_field
from tunemill.stages.data.preferences.config import PreferencesConfig
from tunemill.stages.data.preferences.conversation import (
    ConversationReader,
    conversation_reader,
    given_system,
    own_system,
)
from tunemill.stages.data.preferences.cuts import Cut, Cutter, unasked_opening
from tunemill.stages.data.preferences.dialogue import Dialogue, dialogue, messages_of
from tunemill.stages.data.preferences.records import Kit, Pair, Reader, Reward, Said, Whole
from tunemill.stages.errors import SettingError


def default(config: PreferencesConfig, kit: Kit) -> Reader:
    """Rows of `messages` and two answers, each a message, a text or a conversation that ends with it."""
    conversation, cutter = _tools_of(config, kit)
    behind = unasked_opening(kit.render, kit.tokenizer.eos_token)

    def read(row: RowValue) -> Pair:
        messages = row.get(config.field_messages)
        if messages is None:
            raise BadRowError(f"no field {config.field_messages!r}; the row has {sorted(row)}")
        if isinstance(messages, str):
            messages = [conversation.message("user", messages)]
        if not isinstance(messages, list) or not messages:
            raise BadRowError(f"field {config.field_messages!r} must be a list of messages: {messages!r:.60}")
        sides = {field: messages_of(conversation, row, field) for field in _answer_fields(config)}
        found = dialogue(conversation, sides, messages=(config.field_messages, messages))
        return _pair(cutter.cut(*_asked(conversation, found, own_system(config, row, None), row)), behind)

    return read


def argilla_chat(config: PreferencesConfig, kit: Kit) -> Reader:
    """Rows of two conversations, the same but for their last messages; what is before those is the prompt."""
    conversation, cutter = _tools_of(config, kit)
    behind = unasked_opening(kit.render, kit.tokenizer.eos_token)

    def read(row: RowValue) -> Pair:
        found = dialogue(conversation, _conversations(conversation, config, row))
        return _pair(cutter.cut(*_asked(conversation, found, own_system(config, row, None), row)), behind)

    return read


def argilla(config: PreferencesConfig, kit: Kit) -> Reader:
    """As `argilla_chat`, for ORPO: answers keep what the template puts behind their end of turn.

    A `prompt` of a row that is a text is its question; answers that come alone need one.
    """
    conversation, cutter = _tools_of(config, kit)
    behind = unasked_opening(kit.render, kit.tokenizer.eos_token)

    def read(row: RowValue) -> Pair:
        prompt = row.get("prompt")
        found = dialogue(
            conversation,
            _conversations(conversation, config, row),
            question=("prompt", prompt) if isinstance(prompt, str) else None,
        )
        cut = cutter.cut(*_asked(conversation, found, own_system(config, row, "system"), row))
        return _pair(cut, behind, whole=True)

    return read


def reward(config: PreferencesConfig, kit: Kit) -> Reader:
    """Rows of `input`, `chosen`, `rejected` and perhaps a system text; or of two whole conversations.

    An empty system text is a system message without text, as in conversations to train on.
    """
    conversation, cutter = _tools_of(config, kit)

    def read(row: RowValue) -> Reward:
        fields = _answer_fields(config)
        for field in fields:
            if not isinstance(row.get(field), list | dict):
                text_field(row, field, required=True)
        sides = {field: messages_of(conversation, row, field) for field in fields}
        alone = any(len(side) == 1 for side in sides.values())
        asks = alone or isinstance(row.get("input"), str)
        question = ("input", text_field(row, "input", required=True)) if asks else None
        found = dialogue(conversation, sides, question=question)
        cut = cutter.cut(*_asked(conversation, found, given_system(config, row, "system"), row))
        start = len(cut.prompt)
        wholes = [
            Whole(cut.prompt + text, Said(start + said.start, start + said.end))
            for text, said in zip(cut.answers, cut.said, strict=True)
        ]
        return Reward(wholes[0], wholes[1], bos=False)

    return read


def _tools_of(config: PreferencesConfig, kit: Kit) -> tuple[ConversationReader, Cutter]:
    """How the messages of rows are read, and what renders them."""
    conversation = conversation_reader(config, needed_template(kit))
    return conversation, Cutter(refusing(config, kit.render), refusing(config, kit.render_opened))


def _answer_fields(config: PreferencesConfig) -> tuple[str, str]:
    return config.field_chosen, config.field_rejected


def _conversations(
    conversation: ConversationReader, config: PreferencesConfig, row: RowValue
) -> dict[str, list[Any]]:
    """The messages of both answers, which may be stored as JSON text."""
    return {field: messages_of(conversation, row, field, as_json=True) for field in _answer_fields(config)}


def _asked(
    conversation: ConversationReader, found: Dialogue, system: str | None, row: RowValue
) -> tuple[list[Message], Any, list[Any] | None]:
    """What is to be answered, the answers, and the tools that the template describes."""
    history = conversation.history(found.history, system, found.field)
    return history, found.answers, conversation.tools(row)


def _pair(cut: Cut, behind: str, whole: bool = False) -> Pair:
    """A pair, without the opening that a template puts `behind` every conversation.

    Unless `whole`, white space behind what is said and its end of turn is left out too, as in Axolotl.
    """
    texts = [text.removesuffix(behind) for text in cut.answers]
    first, second = (
        Said(said.start, min(said.end, len(text))) for text, said in zip(texts, cut.said, strict=True)
    )
    if not whole:
        texts = [
            text[: max(said.end, len(text.rstrip()))]
            for text, said in zip(texts, (first, second), strict=True)
        ]
    return Pair(cut.prompt, texts[0], texts[1], (first, second))


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
