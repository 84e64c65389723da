"""Rendering a conversation with transformers."""

from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from tunemill.stages.tokenized.example import Message, Render


def renderer(tokenizer: PreTrainedTokenizerBase, template: str | None, variables: dict[str, Any]) -> Render:
    """A function from messages and tools to text; it raises `jinja2.TemplateError` where the template does."""
    given = {**tokenizer.special_tokens_map, **variables}

    def render(messages: list[Message], tools: list[Any] | None) -> str:
        texts, _ = render_jinja_template(
            [messages], tools=tools, chat_template=template, add_generation_prompt=False, **given
        )
        return str(texts[0])

    return render
