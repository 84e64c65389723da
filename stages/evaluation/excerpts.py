"""How much tables show: rows, and of long texts."""

WRONG_SHOWN = 20
PROMPT_SHOWN = 200
ANSWER_SHOWN = 600


def end_of(prompt: str | None) -> str:
    """The end of a prompt, where the question stands."""
    text = prompt or ""
    return text if len(text) <= PROMPT_SHOWN else "..." + text[-PROMPT_SHOWN:]


def start_of(answer: str | None) -> str:
    """The beginning of an answer."""
    text = answer or ""
    return text if len(text) <= ANSWER_SHOWN else text[:ANSWER_SHOWN] + "..."
