"""Rendering a conversation with transformers."""

from collections.abc import Callable
from datetime import date
from typing import Any

from jinja2 import Undefined
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from tunemill.stages.errors import SettingError
from tunemill.stages.tokenized.example import Message, Render

CLOCK = "strftime_now"


def renderer(tokenizer: PreTrainedTokenizerBase, template: str | None, variables: dict[str, Any]) -> Render:
    """A function from messages and tools to text; it raises `jinja2.TemplateError` where the template does.

    Templates see no clock but the one in `variables`: the text would depend on the day. Raises SettingError where
    that one is no date.
    """
    given = {**tokenizer.special_tokens_map, **variables, CLOCK: clock(variables.get(CLOCK))}

    def render(messages: list[Message], tools: list[Any] | None) -> str:
        texts, _ = render_jinja_template(
            [messages], tools=tools, chat_template=template, add_generation_prompt=False, **given
        )
        return str(texts[0])

    return render


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
