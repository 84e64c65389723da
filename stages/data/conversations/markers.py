"""Whether the words with which a chat template marks turns are tokens of the tokenizer."""

import re

from jinja2 import TemplateError

from tunemill.stages.data.conversations.loaded import LoadedTokenizer
from tunemill.stages.data.conversations.template_body import renderer
from tunemill.stages.data.conversations.today import CLOCK

# Characters of the private use area: what a template writes around them is its own.
SYSTEM, QUESTION, ANSWER = "\ue000", "\ue001", "\ue002"
CONVERSATION = [
    {"role": "system", "content": SYSTEM},
    {"role": "user", "content": QUESTION},
    {"role": "assistant", "content": ANSWER},
]
# What a template that writes the date is given; a date is no marker.
DAY = {CLOCK: "2026-01-31"}
# <|im_start|>, <start_of_turn>, <turn|>, <｜User｜>, [INST], [|user|]
MARKER = re.compile(r"<[^<>\s]{1,40}>|\[/?[A-Z_]{2,40}\]|\[\|\w{1,40}\|\]")


def advice(tokenizer: LoadedTokenizer, template: str, name: str) -> list[str]:
    """What to tell the user about the markers of the template called `name`."""
    text = example(tokenizer, template)
    if text is None:
        return []
    found = list(dict.fromkeys(MARKER.findall(text)))
    told = []
    split = [marker for marker in found if tokens_of(marker, tokenizer) > 1]
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


def tokens_of(text: str, tokenizer: LoadedTokenizer) -> int:
    """How many tokens a text has, without those that are put around it."""
    return sum(tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).attention_mask)


def example(tokenizer: LoadedTokenizer, template: str) -> str | None:
    """A short conversation as the template writes it; None where it writes neither with nor without system message."""
    render = renderer(tokenizer, template, DAY)
    for messages in (CONVERSATION, CONVERSATION[1:]):
        try:
            return render(messages, None)
        except TemplateError:
            continue
    return None


def listing(words: list[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
