"""Where a rendered prompt ends and its answers begin.

The prompt is what the template makes for a model to go on from, and an answer all that stands behind it in the whole
conversation. Where the whole conversation parts from that already in the opening of the answer (a thought that is
opened for a model, and that an answer does not have), the prompt ends there, for either answer of a pair: that is how
TRL does it. So prompt and answer are the rendered conversation, and no character is lost or said twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from tunemill.stages.data.conversations.example import BadRowError, Message, Render
from tunemill.stages.data.conversations.messages import TurnSource
from tunemill.stages.data.preferences.records import Said, common_start, said_in

QUESTION: Message = {"role": "user", "content": "[[question]]"}
ANSWER: Message = {"role": "assistant", "content": "[[answer]]"}


@dataclass(frozen=True)
class Cut:
    """A prompt, the answers behind it, and what of each answer is said."""

    prompt: str
    answers: tuple[str, ...]
    said: tuple[Said, ...]


@dataclass(frozen=True)
class Cutter:
    """Renders conversations as they are, and `opened`: with the opening of the next answer."""

    render: Render
    opened: Render

    def cut(self, history: list[Message], answers: Sequence[TurnSource], tools: list[Any] | None) -> Cut:
        """A prompt and its answers. Raises BadRowError where it cannot be told where these begin."""
        opened = self.opened(history, tools)
        wholes = [self.render([*history, turn.value], tools) for turn in answers]
        begins = all(whole.startswith(opened) for whole in wholes)
        prompt = opened if begins else common_start(opened, *wholes)
        if prompt != opened and len(prompt) < self._asked(opened, history, tools):
            prompt, texts = opened, [self._elsewhere(turn) for turn in answers]
        else:
            texts = [whole[len(prompt) :] for whole in wholes]
        said = tuple(_said(text, turn) for text, turn in zip(texts, answers, strict=True))
        return Cut(prompt, tuple(texts), said)

    def _asked(self, opened: str, history: list[Message], tools: list[Any] | None) -> int:
        """How many characters of an opened prompt are the question, without the opening of an answer."""
        return len(common_start(opened, self.render(history, tools)))

    def _elsewhere(self, turn: TurnSource) -> str:
        """An answer behind another question: for templates that say a question otherwise once it is answered.

        Mistral's put the system text into the last message, where that is the user's.
        """
        opened, whole = self.opened([QUESTION], None), self.render([QUESTION, turn.value], None)
        prompt = common_start(opened, whole)
        if len(prompt) < self._asked(opened, [QUESTION], None):
            raise BadRowError(
                "where the answer begins cannot be told: the chat template writes the conversation before it "
                "otherwise once it is answered"
            )
        return whole[len(prompt) :]


def unasked_opening(render: Render, eos: str | None) -> str:
    """The opening of another answer that a template puts behind the EOS of every conversation; empty for most.

    A model stops at its EOS, so such an opening is no part of an answer.
    """
    try:
        _, ended, behind = render([QUESTION, ANSWER], None).rpartition(eos) if eos else ("", "", "")
    except TemplateError:
        return ""
    return behind if ended and behind.strip() and ANSWER["content"] not in behind else ""


def _said(text: str, turn: TurnSource) -> Said:
    """What of an answer's text is said: its content, or all where it also calls tools or thinks."""
    content = turn.value.get("content", "")
    more = any(value for name, value in turn.value.items() if name not in ("role", "content"))
    if more or not isinstance(content, str):
        return Said(0, len(text.rstrip()))
    return said_in(text, content, ends=True)
