"""Where two texts differ, word by word."""

import difflib
import re
from collections.abc import Iterator

# Comparing longer texts word by word takes seconds.
LONGEST = 20_000


def differing_words(one: str, other: str) -> Iterator[tuple[str, str]]:
    """Both texts in pieces, in order: equal where they are the same, else what stands in each."""
    if one == other or len(one) + len(other) > LONGEST:
        yield one, other
        return
    ones, others = (re.findall(r"\s+|\w+|[^\w\s]", text) for text in (one, other))
    for _, start, end, other_start, other_end in difflib.SequenceMatcher(
        None, ones, others, autojunk=False
    ).get_opcodes():
        yield "".join(ones[start:end]), "".join(others[other_start:other_end])
