"""`type: llama2_chat`: conversations as Meta's reference code writes them for Llama 2."""

from itertools import pairwise
from typing import Any

from tunemill.stages.data.conversations.example import BadRowError, Example, Format, Kit, RowValue, Segment
from tunemill.stages.data.tokenized.config import TokenizedConfig

SYSTEM = "<<SYS>>\n{system}\n<</SYS>>\n\n"
DEFAULT_SYSTEM = (
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being safe. "
    "Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. "
    "Please ensure that your responses are socially unbiased and positive in nature.\n\n"
    "If a question does not make any sense, or is not factually coherent, explain why instead of answering something "
    "not correct. If you don't know the answer to a question, please don't share false information."
)


def llama2_chat(config: TokenizedConfig, _kit: Kit) -> Format:
    """Rows of `conversations` between human and gpt. Each question and its answer are one text, from BOS to EOS."""

    def read(row: RowValue) -> Example:
        messages = row.get("conversations")
        if not isinstance(messages, list) or not messages:
            raise BadRowError(f"field 'conversations' must be a list of messages, not {messages!r:.60}")
        turns = [turn(number, message) for number, message in enumerate(messages, 1)]
        system = turns.pop(0)[1] if turns[0][0] == "system" else DEFAULT_SYSTEM
        # An answer to nothing is passed over, and so is a question without an answer.
        turns = turns[1:] if turns and turns[0][0] == "gpt" else turns
        check_alternation(turns)
        questions = [text for role, text in turns if role == "human"]
        answers = [text for role, text in turns if role == "gpt"]
        if not answers:
            raise BadRowError("the conversation has no question with an answer")
        questions[0] = SYSTEM.format(system=system) + questions[0]
        return tuple(pair(*texts) for texts in zip(questions, answers, strict=False))

    def pair(question: str, answer: str) -> Segment:
        prompt = f"[INST] {question} [/INST]"
        masked = "" if config.train_on_inputs else prompt
        return Segment("gpt", f"{prompt} {answer} ", trained=True, bos=True, eos=1, masked=masked)

    return Format(read)


def turn(number: int, message: Any) -> tuple[str, str]:
    """Role and text of a message."""
    role, text = (message.get("from"), message.get("value")) if isinstance(message, dict) else (None, None)
    known = ("system", "human", "gpt") if number == 1 else ("human", "gpt")
    if role not in known:
        raise BadRowError(f"message {number}: 'from' is {role!r} and must be one of {', '.join(known)}")
    if not isinstance(text, str) or not text.strip():
        raise BadRowError(f"message {number} has no text in 'value': {message!r:.60}")
    return str(role), text if role == "system" else text.strip()


def check_alternation(turns: list[tuple[str, str]]) -> None:
    """Raises BadRowError where one role speaks twice in a row."""
    for (before, _), (after, _) in pairwise(turns):
        if before == after:
            raise BadRowError(f"the roles must take turns, and {after!r} speaks twice in a row")
