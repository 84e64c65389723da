"""What a preference format makes of a row."""

from collections.abc import Callable
from dataclasses import dataclass

from tunemill.stages.data.conversations.example import BadRowError, Render, RowValue
from tunemill.stages.data.conversations.loaded import LoadedTokenizer


@dataclass(frozen=True)
class Pair:
    """A prompt, and two answers of which the first is better."""

    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Rated:
    """A prompt, an answer, and whether the answer is good."""

    prompt: str
    completion: str
    label: bool


@dataclass(frozen=True)
class Whole:
    """A whole conversation. `prompt` is what it begins with up to its last answer, where that matters.

    Then the tokens of the prompt alone come first, and of the whole conversation's only those that are further
    on: a token that reaches from the prompt into the answer is cut, as it would be behind a generated prompt.
    """

    text: str
    prompt: str = ""


@dataclass(frozen=True)
class Reward:
    """Two whole conversations of which the first is better. `bos`: the tokenizer puts its BOS before them."""

    chosen: Whole
    rejected: Whole
    bos: bool


Record = Pair | Rated | Reward
Reader = Callable[[RowValue], Record]


@dataclass(frozen=True)
class Kit:
    """What a format may use: the tokenizer, its template, and that rendered with the answer's opening and without."""

    tokenizer: LoadedTokenizer
    template: str | None
    render: Render
    render_opened: Render


def label_field(row: RowValue, name: str) -> bool:
    """Whether an answer is good: true or false, also as a number or a word."""
    value = row.get(name)
    if value is None:
        raise BadRowError(f"no field {name!r}; the row has {sorted(row)}")
    words: dict[object, bool] = {"true": True, "false": False, "1": True, "0": False}
    known = words.get(value.strip().lower()) if isinstance(value, str) else None
    if known is None and value in (0, 1):
        known = bool(value)
    if known is None:
        raise BadRowError(f"field {name!r} must be true or false, not {value!r:.60}")
    return known
