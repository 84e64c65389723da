"""Conversations as a tokenizer's template renders them."""

from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

Messages = list[dict[str, Any]]
QUESTION = "What is 12 + 30?\nIt's for caf\u00e9 7."
ANSWER = "It is 42."
CONVERSATIONS: tuple[Messages, ...] = (
    [{"role": "user", "content": "Write the date 3 March 1998 in ISO form."}],
    [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": ANSWER},
        {"role": "user", "content": "  Thanks, and 3.5 times two?"},
    ],
    [{"role": "system", "content": "You are terse."}, {"role": "user", "content": QUESTION}],
)


def rendered(words: PreTrainedTokenizerBase, messages: Messages, **settings: Any) -> str | None:
    """A conversation as text; None where the template takes no such conversation, or there is none."""
    if not words.chat_template:
        return None
    try:
        text = words.apply_chat_template(messages, tokenize=False, **settings)
    except (TemplateError, ValueError, TypeError, KeyError):
        return None
    return str(text)


def rendered_prompts(words: PreTrainedTokenizerBase) -> list[str]:
    """The conversations up to where an answer begins."""
    texts = (rendered(words, messages, add_generation_prompt=True) for messages in CONVERSATIONS)
    return [text for text in texts if text is not None]


def ending_of_answers(words: PreTrainedTokenizerBase) -> int | None:
    """The special token that the template puts right behind an answer; None where there is none."""
    text = rendered(words, [*CONVERSATIONS[0], {"role": "assistant", "content": ANSWER}])
    if text is None or ANSWER not in text:
        return None
    behind = text.rpartition(ANSWER)[2]
    for id_ in words.encode(behind, add_special_tokens=False)[:2]:
        if id_ in words.all_special_ids or id_ in words.added_tokens_decoder:
            return int(id_)
    return None
