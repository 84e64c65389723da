"""Whether the words with which a chat template marks turns are tokens of the tokenizer."""

import re
from typing import Any

from jinja2 import TemplateError

# Characters of the private use area: what a template writes around them is its own.
SYSTEM, QUESTION, ANSWER = "\ue000", "\ue001", "\ue002"
CONVERSATION = [
    {"role": "system", "content": SYSTEM},
    {"role": "user", "content": QUESTION},
    {"role": "assistant", "content": ANSWER},
]
# <|im_start|>, <start_of_turn>, <turn|>, <｜User｜>, [INST], [|user|]
MARKER = re.compile(r"<[^<>\s]{1,40}>|\[/?[A-Z_]{2,40}\]|\[\|\w{1,40}\|\]")


def advice(tokenizer: Any, template: str, name: str) -> list[str]:
    """What to tell the user about the markers of the template called `name`, beside the transformers tokenizer."""
    text = example(tokenizer, template)
    if text is None:
        return []
    found = list(dict.fromkeys(MARKER.findall(text)))
    told = []
    split = [marker for marker in found if len(tokenizer.encode(marker, add_special_tokens=False)) > 1]
    if split:
        told.append(
            f"{name} marks turns with {listing(split)}, which this tokenizer splits into several tokens each; add "
            "them under tokens:, or choose a template that was made for this model"
        )
    eos = tokenizer.eos_token
    if eos is not None and eos not in text:
        ending = MARKER.match(text.rpartition(ANSWER)[2].lstrip())
        fix = (
            f"an answer ends with {ending.group()}: set special_tokens: eos_token (and eot_tokens) to it"
            if ending
            else "set special_tokens: eos_token (or eot_tokens) to what ends a turn"
        )
        told.append(
            f"the EOS token {eos} does not occur in {name}, so the model is not taught to stop; {fix}"
        )
    return told


def example(tokenizer: Any, template: str) -> str | None:
    """A short conversation as the template writes it; None where it writes neither with nor without system message."""
    for messages in (CONVERSATION, CONVERSATION[1:]):
        try:
            return str(tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False))
        except (TemplateError, TypeError):
            continue
    return None


def listing(words: list[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
