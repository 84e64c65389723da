"""Rows of questions with their answers, by the names of Axolotl's `ebft` types: a prompt, and its `ground_truth`."""

import re
from collections.abc import Mapping, Sequence

from tunemill.stages.data.conversations.example import BadRowError, Message, RowValue
from tunemill.stages.data.prompts.reading import Read, Reader, listed, messages_of
from tunemill.stages.data.rows.answers import GROUND_TRUTH

FIELDS = ("messages", "conversations")
THOUGHT = re.compile(r"<think>.*?</think>\s*", re.S)


def _asked_and_told(row: RowValue) -> list[Read]:
    """A row of a question (`input`) and its answer (`output`)."""
    for field in ("input", "output"):
        if not isinstance(row.get(field), str) or not row[field]:
            raise BadRowError(f"no text in field {field!r}; the row has {sorted(row)}")
    return [Read([{"role": "user", "content": row["input"]}], {GROUND_TRUTH: row["output"]})]


def _turns(row: RowValue) -> list[Read]:
    """Of a conversation each answer, with what was said before it."""
    field = FIELDS[1] if row.get(FIELDS[0]) is None and row.get(FIELDS[1]) is not None else FIELDS[0]
    messages: list[Message] = messages_of(listed(row, field), field)
    found = []
    for place, message in enumerate(messages):
        if message["role"] == "assistant" and place and isinstance(message.get("content"), str):
            found.append(Read(messages[:place], {GROUND_TRUTH: message["content"]}))
    if not found:
        raise BadRowError(f"field {field!r}: no question with its answer behind it")
    return found


def _last_turn(row: RowValue) -> list[Read]:
    return _turns(row)[-1:]


def _without_thoughts(row: RowValue) -> list[Read]:
    """The last answer, less what it thinks between <think> and </think>."""
    (last,) = _last_turn(row)
    return [Read(last.prompt, {GROUND_TRUTH: THOUGHT.sub("", last.columns[GROUND_TRUTH]).strip()})]


def _text(row: RowValue) -> list[Read]:
    """A whole text, of which nothing is a prompt."""
    return [Read("", {GROUND_TRUTH: _first_text(row, ("question", "text"))})]


def _asked_text(row: RowValue) -> list[Read]:
    """A text that is asked and one that answers, put together without a chat template."""
    asked = _first_text(row, ("input", "prompt", "question"))
    return [Read(asked, {GROUND_TRUTH: _first_text(row, ("output", "completion", "answer"))})]


def _first_text(row: RowValue, fields: Sequence[str]) -> str:
    value = next((row[field] for field in fields if row.get(field) is not None), None)
    if not isinstance(value, str) or not value:
        raise BadRowError(f"no text in field {' or '.join(map(repr, fields))}; the row has {sorted(row)}")
    return value


WHOLE_TEXTS = "ebft_pretrain.transform"
READERS: Mapping[str, Reader] = {
    "ebft_opencode.transform": _asked_and_told,
    WHOLE_TEXTS: _text,
    "ebft_strided_structured.transform": _asked_text,
    "ebft_chat_multiturn.transform_last_turn": _last_turn,
    "ebft_chat_multiturn.transform_all_turns": _turns,
    "ebft_reasoning.transform": _last_turn,
    "ebft_reasoning.transform_answer_only": _without_thoughts,
}
# Of Axolotl's types those that are not there, and what to write instead.
NOT_YET: Mapping[str, str] = {
    "ebft_chat_multiturn.transform": "turns are not sampled one behind the other yet. Use "
    "ebft_chat_multiturn.transform_all_turns, which makes a row of each",
    "ebft_strided_chat.transform": "a row has one answer. Use ebft_chat_multiturn.transform_all_turns, which makes a "
    "row of each turn and goes with ebft.mode: strided too",
    "ebft_reasoning.transform_strided": "ebft_reasoning.transform goes with ebft.mode: strided too. Use that",
    "ebft_reasoning.transform_split_thinking": "thoughts are not put into a field of their own yet. Use "
    "ebft_reasoning.transform, or ebft_reasoning.transform_answer_only",
}
