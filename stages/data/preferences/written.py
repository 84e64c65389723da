"""Formats whose wording is written out here instead of rendered by a chat template: ChatML, Llama 3, Zephyr."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunemill.stages.data.conversations.example import BadRowError, Message, RowValue, text_field
from tunemill.stages.data.preferences.config import PreferencesConfig
from tunemill.stages.data.preferences.conversation import (
    ConversationReader,
    conversation_reader,
    own_system,
    text_of,
)
from tunemill.stages.data.preferences.dialogue import Dialogue, dialogue, messages_of
from tunemill.stages.data.preferences.records import (
    Kit,
    Pair,
    Rated,
    Reader,
    Reward,
    Said,
    Whole,
    label_field,
    ready_text,
    said_in,
)

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

    def answer(self, text: str) -> tuple[str, Said]:
        """An answer with its end of turn, and what of it is said."""
        written = f"{text}{self.close}"
        return written, said_in(written, text, ends=True)

    def pair(self, turns: Sequence[Message], chosen: str, rejected: str) -> Pair:
        """A pair of answers to the turns."""
        (better, said_better), (worse, said_worse) = self.answer(chosen), self.answer(rejected)
        return Pair(self.prompt(turns), better, worse, (said_better, said_worse))

    def rated(self, turns: Sequence[Message], completion: str, label: bool) -> Rated:
        """A judged answer to the turns."""
        written, said = self.answer(completion)
        return Rated(self.prompt(turns), written, label, said)


WORDINGS = {
    "chatml": Wording("<|im_start|>{role}\n", "<|im_end|>", "\n"),
    "llama3": Wording("<|start_header_id|>{role}<|end_header_id|>\n\n", "<|eot_id|>", ""),
}


def pair(config: PreferencesConfig, _kit: Kit, wording: str, prompt: str) -> Reader:
    """Rows of a prompt, `chosen` and `rejected`, these also as messages; `prompt` names the prompt's field."""
    words = WORDINGS[wording]
    conversation = conversation_reader(config)

    def read(row: RowValue) -> Pair:
        fields = [answer_name(row, config, side) for side in RESPONSE_FIELDS]
        if not any(isinstance(row.get(field), list) for field in fields):
            chosen, rejected = (text_field(row, field, required=True) for field in fields)
            return words.pair(one_turn(config, row, prompt_field(row, prompt)), chosen, rejected)
        asked = prompt_field(row, prompt)
        found = dialogue(
            conversation,
            {field: messages_of(conversation, row, field) for field in fields},
            question=(asked, text_field(row, asked, required=True)) if asked in row else None,
        )
        history, texts = spoken(conversation, found, own_system(config, row, "system"))
        return words.pair(history, texts[0], texts[1])

    return read


def rated(config: PreferencesConfig, _kit: Kit, wording: str, prompt: str) -> Reader:
    """Rows of a prompt, `completion` and `label`; `prompt` names the prompt's field."""
    words = WORDINGS[wording]

    def read(row: RowValue) -> Rated:
        history = one_turn(config, row, prompt)
        completion = text_field(row, "completion", required=True)
        return words.rated(history, completion, label_field(row, "label"))

    return read


def pair_chat(config: PreferencesConfig, _kit: Kit, wording: str) -> Reader:
    """Rows whose `chosen` and `rejected` are whole conversations that differ in their last messages, the answers."""
    words = WORDINGS[wording]
    conversation = conversation_reader(config)

    def read(row: RowValue) -> Pair:
        fields = (config.field_chosen, config.field_rejected)
        sides = {field: messages_of(conversation, row, field, as_json=True) for field in fields}
        found = dialogue(conversation, sides)
        history, texts = spoken(conversation, found, own_system(config, row, None))
        return words.pair(history, texts[0], texts[1])

    return read


def rated_chat(config: PreferencesConfig, _kit: Kit, wording: str) -> Reader:
    """Rows whose `completion` is a whole conversation; its last message is the answer."""
    words = WORDINGS[wording]
    conversation = conversation_reader(config)

    def read(row: RowValue) -> Rated:
        side = {"completion": messages_of(conversation, row, "completion", as_json=True)}
        found = dialogue(conversation, side)
        history, (answer,) = spoken(conversation, found, own_system(config, row, None))
        return words.rated(history, answer, label_field(row, "label"))

    return read


def reward(config: PreferencesConfig, _kit: Kit, wording: str) -> Reader:
    """Rows of `input`, `chosen`, `rejected` and perhaps a system text, as two conversations."""
    words = WORDINGS[wording]

    def read(row: RowValue) -> Reward:
        prompt = words.prompt(one_turn(config, row, "input"))
        wholes = []
        for field in (config.field_chosen, config.field_rejected):
            written, said = words.answer(text_field(row, field, required=True))
            wholes.append(Whole(prompt + written, Said(len(prompt) + said.start, len(prompt) + said.end)))
        return Reward(wholes[0], wholes[1], bos=True)

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
        better, worse = (text_field(item, "answer", required=True) for item in (best, second))
        return Pair(prompt, better, worse)

    return read


def pair_as_it_is(config: PreferencesConfig, _kit: Kit) -> Reader:
    """Rows that are ready: `prompt`, `chosen` and `rejected` are texts."""

    def read(row: RowValue) -> Pair:
        fields = ("prompt", config.field_chosen, config.field_rejected)
        texts = [text_field(row, field, required=True) for field in fields]
        prompt, chosen, rejected = map(ready_text, ("prompt", "chosen", "rejected"), texts)
        return Pair(prompt, chosen, rejected)

    return read


def rated_as_it_is(_config: PreferencesConfig, _kit: Kit) -> Reader:
    """Rows that are ready: `prompt` and `completion` are texts, `label` says whether the completion is good."""

    def read(row: RowValue) -> Rated:
        prompt, completion = (text_field(row, field, required=True) for field in ("prompt", "completion"))
        return Rated(prompt, ready_text("completion", completion), label_field(row, "label"))

    return read


def spoken(
    conversation: ConversationReader, found: Dialogue, system: str | None
) -> tuple[list[Message], list[str]]:
    """What is to be answered, and the texts of the answers. Raises BadRowError where messages are more than texts."""
    for message in found.history:
        if isinstance(message, dict) and message.get("tool_calls"):
            raise BadRowError(
                f"field {found.field!r}: a message calls tools, which this wording cannot say; use a type of "
                "chat_template"
            )
    history = conversation.history(found.history, system, found.field)
    return history, [text_of(turn.value) for turn in found.answers]


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
