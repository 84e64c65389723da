"""Formats whose wording is written out here instead of rendered by a chat template: ChatML, Llama 3, Zephyr."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunemill.stages.data.conversations.example import BadRowError, Message, RowValue, text_field
from tunemill.stages.data.preferences.config import PreferencesConfig
from tunemill.stages.data.preferences.conversation import (
    as_messages,
    conversation_reader,
    own_system,
    split_last,
    text_of,
)
from tunemill.stages.data.preferences.records import Kit, Pair, Rated, Reader, Reward, Whole, label_field

# Where `chatml.argilla` and its like look for a prompt, in this order, and for the answers besides their own fields.
PROMPT_FIELDS = ("prompt", "input", "question", "instruction")
RESPONSE_FIELDS = {"chosen": "chosen_response", "rejected": "rejected_response"}


@dataclass(frozen=True)
class Wording:
    """A turn is `open` with its role, its text and `close`; `between` stands between two turns."""

    open: str
    close: str
    between: str

    def prompt(self, turns: Sequence[Message]) -> str:
        """The turns, and the opening of the answer."""
        texts = [f"{self.open.format(role=t['role'])}{text_of(t)}{self.close}{self.between}" for t in turns]
        return "".join(texts) + self.open.format(role="assistant")

    def answer(self, text: str) -> str:
        return f"{text}{self.close}"


WORDINGS = {
    "chatml": Wording("<|im_start|>{role}\n", "<|im_end|>", "\n"),
    "llama3": Wording("<|start_header_id|>{role}<|end_header_id|>\n\n", "<|eot_id|>", ""),
}


def pair(config: PreferencesConfig, _kit: Kit, wording: str, prompt: str) -> Reader:
    """Rows of a prompt, `chosen` and `rejected`, these also as messages; `prompt` names the prompt's field."""
    words = WORDINGS[wording]
    conversation = conversation_reader(config)

    def read(row: RowValue) -> Pair:
        chosen, rejected = (row.get(answer_name(row, config, side)) for side in RESPONSE_FIELDS)
        if not isinstance(chosen, list) and not isinstance(rejected, list):
            texts = [
                text_field(row, answer_name(row, config, side), required=True) for side in RESPONSE_FIELDS
            ]
            history = one_turn(config, row, prompt_field(row, prompt))
        else:
            earlier, last = split_last(chosen, config.field_chosen)
            _, other = split_last(rejected, config.field_rejected)
            texts = [
                text_of(conversation.answer(last, config.field_chosen).value),
                text_of(conversation.answer(other, config.field_rejected).value),
            ]
            history = one_turn(config, row, prompt_field(row, prompt))
            if len(earlier) > 1:
                history = conversation.history(
                    earlier, own_system(config, row, "system"), config.field_chosen
                )
        return Pair(words.prompt(history), words.answer(texts[0]), words.answer(texts[1]))

    return read


def rated(config: PreferencesConfig, _kit: Kit, wording: str, prompt: str) -> Reader:
    """Rows of a prompt, `completion` and `label`; `prompt` names the prompt's field."""
    words = WORDINGS[wording]

    def read(row: RowValue) -> Rated:
        history = one_turn(config, row, prompt)
        completion = text_field(row, "completion", required=True)
        return Rated(words.prompt(history), words.answer(completion), label_field(row, "label"))

    return read


def pair_chat(config: PreferencesConfig, _kit: Kit, wording: str) -> Reader:
    """Rows whose `chosen` and `rejected` are whole conversations; their last messages are the answers."""
    words = WORDINGS[wording]
    conversation = conversation_reader(config)

    def read(row: RowValue) -> Pair:
        earlier, last = split_last(as_messages(row, config.field_chosen), config.field_chosen)
        _, other = split_last(as_messages(row, config.field_rejected), config.field_rejected)
        history = conversation.history(earlier, own_system(config, row, None), config.field_chosen)
        chosen = conversation.answer(last, config.field_chosen)
        rejected = conversation.answer(other, config.field_rejected)
        answers = (words.answer(text_of(turn.value)) for turn in (chosen, rejected))
        return Pair(words.prompt(history), *answers)

    return read


def rated_chat(config: PreferencesConfig, _kit: Kit, wording: str) -> Reader:
    """Rows whose `completion` is a whole conversation; its last message is the answer."""
    words = WORDINGS[wording]
    conversation = conversation_reader(config)

    def read(row: RowValue) -> Rated:
        earlier, last = split_last(as_messages(row, "completion"), "completion")
        history = conversation.history(earlier, own_system(config, row, None), "completion")
        answer = text_of(conversation.answer(last, "completion").value)
        return Rated(words.prompt(history), words.answer(answer), label_field(row, "label"))

    return read


def reward(config: PreferencesConfig, _kit: Kit, wording: str) -> Reader:
    """Rows of `input`, `chosen`, `rejected` and perhaps a system text, as two conversations."""
    words = WORDINGS[wording]

    def read(row: RowValue) -> Reward:
        prompt = words.prompt(one_turn(config, row, "input"))
        chosen = text_field(row, config.field_chosen, required=True)
        rejected = text_field(row, config.field_rejected, required=True)
        return Reward(Whole(prompt + words.answer(chosen)), Whole(prompt + words.answer(rejected)), bos=True)

    return read


def nectar(_config: PreferencesConfig, _kit: Kit) -> Reader:
    """Rows of `prompt` and ranked `answers`; the best two are the pair. Rank 1 is the best."""

    def read(row: RowValue) -> Pair:
        answers = row.get("answers")
        if not isinstance(answers, list) or len(answers) < 2:
            raise BadRowError(f"field 'answers' must be a list of two or more answers, not {answers!r:.60}")
        best, second = sorted(answers, key=rank)[:2]
        prompt = (
            f"<|system|>\n</s>\n<|user|>\n{text_field(row, 'prompt', required=True)}</s>\n<|assistant|>\n"
        )
        return Pair(
            prompt, text_field(best, "answer", required=True), text_field(second, "answer", required=True)
        )

    return read


def pair_as_it_is(config: PreferencesConfig, _kit: Kit) -> Reader:
    """Rows that are ready: `prompt`, `chosen` and `rejected` are texts."""

    def read(row: RowValue) -> Pair:
        fields = ("prompt", config.field_chosen, config.field_rejected)
        return Pair(*(text_field(row, field, required=True) for field in fields))

    return read


def rated_as_it_is(_config: PreferencesConfig, _kit: Kit) -> Reader:
    """Rows that are ready: `prompt` and `completion` are texts, `label` says whether the completion is good."""

    def read(row: RowValue) -> Rated:
        prompt, completion = (text_field(row, field, required=True) for field in ("prompt", "completion"))
        return Rated(prompt, completion, label_field(row, "label"))

    return read


def prompt_field(row: RowValue, name: str) -> str:
    """The field of the prompt; `any` is the first of the common ones that the row has."""
    return name if name != "any" else next((f for f in PROMPT_FIELDS if f in row), PROMPT_FIELDS[0])


def answer_name(row: RowValue, config: PreferencesConfig, side: str) -> str:
    """The field of an answer: what the config says, or the other common name where the row has only that."""
    name: str = config.field_chosen if side == "chosen" else config.field_rejected
    return RESPONSE_FIELDS[side] if name not in row and RESPONSE_FIELDS[side] in row else name


def one_turn(config: PreferencesConfig, row: RowValue, field: str) -> list[Message]:
    """The row's system text, unless it is empty, and its prompt, as messages."""
    system = own_system(config, row, "system") or config.default_system_message
    turns = [{"role": "system", "content": system}] if system else []
    return [*turns, {"role": "user", "content": text_field(row, field, required=True)}]


def rank(answer: Any) -> float:
    """The rank of an answer. Raises BadRowError where it has none."""
    value = answer.get("rank") if isinstance(answer, dict) else None
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise BadRowError(f"an answer has no rank: {answer!r:.60}") from None
