"""`type: pygmalion`: conversations between a character and a human, each turn after a token of its own."""

from typing import Any

from tunemill.stages.data.conversations.example import BadRowError, Example, Format, Kit, RowValue, Segment
from tunemill.stages.data.tokenized.config import TokenizedConfig

START = "\n<START>"
MODEL = "<|model|>"


def pygmalion(config: TokenizedConfig, _kit: Kit) -> Format:
    """Rows of `conversations` with the roles system, human and bot; the bot's words are trained on."""
    on_inputs = config.train_on_inputs

    def read(row: RowValue) -> Example:
        messages = row.get("conversations")
        if not isinstance(messages, list) or not messages:
            raise BadRowError(f"field 'conversations' must be a list of messages, not {messages!r:.60}")
        return tuple(segment(number, message) for number, message in enumerate(messages, 1))

    def segment(number: int, message: Any) -> Segment:
        bos = number == 1
        role, text = (
            (message.get("role"), message.get("value")) if isinstance(message, dict) else (None, None)
        )
        if not isinstance(text, str):
            raise BadRowError(f"message {number} has no 'value': {message!r:.60}")
        match role:
            case "system":
                persona = text.removesuffix(START).strip()
                return Segment("system", f"<|system|>Persona: {persona}", on_inputs, bos)
            case "human":
                return Segment("human", f"<|user|> {text.strip()}", on_inputs, bos)
            case "bot":
                masked = "" if on_inputs else MODEL
                return Segment("bot", f"{MODEL} {text.strip()}", True, bos, eos=1, masked=masked)
            case _:
                raise BadRowError(f"message {number}: role {role!r} is none of system, human, bot")

    return Format(read)
