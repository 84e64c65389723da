"""Rendering a conversation, with the texts that transformers' `apply_chat_template` makes."""

from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

from jinja2 import TemplateError, Undefined

from tunemill.stages.data.conversations.example import Message, Render
from tunemill.stages.data.conversations.loaded import LoadedTokenizer
from tunemill.stages.data.conversations.template_environment import MISTAKES, compiled
from tunemill.stages.data.conversations.today import CLOCK
from tunemill.stages.errors import SettingError

# What asks a template for the opening of an answer behind the conversation.
ASKED = "add_generation_prompt"
# What a template finds even where nobody gives it.
DEFAULTS: Mapping[str, Any] = {"documents": None, ASKED: False}


def renderer(tokenizer: LoadedTokenizer, template: str | None, variables: dict[str, Any]) -> Render:
    """A function from messages and tools to text; it raises `jinja2.TemplateError` where the template does.

    Templates see no clock but the one in `variables`: the text would depend on the day. Raises SettingError where
    that one is no date, where `variables` has the messages, and for a template that is not Jinja.
    """
    given = seen(tokenizer, variables)
    made = None if template is None else compiled(template)
    usual_tools = given.pop("tools", None)

    def render(messages: list[Message], tools: list[Any] | None) -> str:
        assert made is not None
        try:
            return made.render(given, messages=messages, tools=tools or usual_tools)
        except MISTAKES as error:
            raise TemplateError(str(error)) from error

    return render


def seen(tokenizer: LoadedTokenizer, variables: dict[str, Any]) -> dict[str, Any]:
    """All that a template sees beside messages and tools. Raises SettingError as `renderer` does."""
    if "messages" in variables:
        raise SettingError(
            "chat_template_kwargs.messages: the messages come from the dataset; remove the key"
        )
    return {
        **DEFAULTS,
        **tokenizer.special_tokens_map,
        **variables,
        CLOCK: clock(variables.get(CLOCK)),
    }


def clock(day: Any) -> Undefined | Callable[[str], str]:
    """What a template finds as `strftime_now`: nothing, or a function that formats the given day."""
    if day is None:
        return Undefined(
            f"it calls {CLOCK}, so its text would depend on the day. Set the date it needs in chat_template_kwargs, "
            f'such as {CLOCK}: "2026-01-31"',
            name=CLOCK,
        )
    try:
        return date.fromisoformat(str(day)).strftime
    except ValueError:
        raise SettingError(
            f'chat_template_kwargs.{CLOCK}: {day!r} is no date. Write it as "2026-01-31"'
        ) from None
