"""Whether an answer is the reference up to case, punctuation, articles and white space."""

import re
import unicodedata
from typing import Literal

from tunemill.stages.evaluation.answered import Answered
from tunemill.stages.evaluation.metrics.settings import MetricSettings

ARTICLES = re.compile(r"\b(a|an|the)\b")


class NormalizedMatch(MetricSettings):
    """As SQuAD compares answers (Rajpurkar et al. 2016)."""

    metric: Literal["normalized_match"]


def score(_settings: NormalizedMatch, one: Answered) -> bool:
    """Whether the normalised texts are the same."""
    return normalized(one.prediction) == normalized(one.reference)


def normalized(text: str) -> str:
    """Lower case without punctuation, English articles and more than one space between words.

    A point or comma between digits stays: 3.5 is not 35.
    """
    lower = unicodedata.normalize("NFKC", text).lower()
    plain = "".join(
        character
        if not unicodedata.category(character).startswith("P") or between_digits(lower, place)
        else ""
        for place, character in enumerate(lower)
    )
    return " ".join(ARTICLES.sub(" ", plain).split())


def between_digits(text: str, place: int) -> bool:
    """Whether the character at a place stands between two digits."""
    return 0 < place < len(text) - 1 and text[place - 1].isdigit() and text[place + 1].isdigit()
