"""Reasoning that stands in the answer between tags, taken apart from it."""

REASONING_TAGS = (
    ("<think>", "</think>"),
    ("<reasoning>", "</reasoning>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
)
ANSWER_TAGS = ("<|begin_of_solution|>", "<|end_of_solution|>")


def split_thinking(content: str) -> tuple[str, str] | None:
    """Reasoning and answer of a text that has both, or None. What stands before the reasoning is dropped."""
    found = next((between for tags in REASONING_TAGS if (between := _between(content, tags))), None)
    if found is None:
        return None
    reasoning, rest = found
    rest = rest.lstrip()
    answer = _between(rest, ANSWER_TAGS)
    return reasoning.strip(), rest if answer is None else answer[0].strip()


def _between(text: str, tags: tuple[str, str]) -> tuple[str, str] | None:
    """What stands between the first opening and the first closing tag, and what comes after."""
    opening, closing = (text.find(tag) for tag in tags)
    if opening < 0 or closing < 0:
        return None
    return text[opening + len(tags[0]) : closing], text[closing + len(tags[1]) :]
