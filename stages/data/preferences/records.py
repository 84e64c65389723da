"""What a preference format makes of a row."""

from collections.abc import Callable
from dataclasses import dataclass

from tunemill.stages.data.conversations.boundaries import common_prefix
from tunemill.stages.data.conversations.example import BadRowError, Render, RowValue
from tunemill.stages.data.conversations.loaded import LoadedTokenizer


@dataclass(frozen=True)
class Said:
    """Characters `start` to `end` of an answer's text: what it says. The others are the wording's: an end of turn."""

    start: int
    end: int


@dataclass(frozen=True)
class Pair:
    """A prompt, and two answers of which the first is better. `said`: of either answer; of all of it where unset."""

    prompt: str
    chosen: str
    rejected: str
    said: tuple[Said, Said] | None = None


@dataclass(frozen=True)
class Rated:
    """A prompt, an answer, and whether the answer is good. `said`: of the answer; of all of it where unset."""

    prompt: str
    completion: str
    label: bool
    said: Said | None = None


@dataclass(frozen=True)
class Whole:
    """A whole conversation, and which of its characters its last answer says."""

    text: str
    said: Said


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


def said_in(text: str, content: str, *, ends: bool) -> Said:
    """Where a content stands in a text; nowhere if it is blank.

    White space before it does not count, that behind it as far as it came out. Where the content does not come out as
    it is, all counts. With `ends` what the text has behind the content is an end of turn: a content that is nothing
    else says nothing.
    """
    core, nothing = content.strip(), Said(len(text), len(text))
    found = text.find(core)
    if not core:
        return nothing
    if found < 0:
        return Said(0, len(text.rstrip()))
    behind = text[found + len(core) :]
    end = behind.strip()
    if ends and end and not core.replace(end, "").strip():
        return nothing
    own = content[len(content.rstrip()) :]
    return Said(found, found + len(core) + len(common_start(own, behind)))


def common_start(*texts: str) -> str:
    """What all texts begin with."""
    first, *others = texts
    return first[: min(common_prefix(first, other) for other in others)]


def ready_text(part: str, text: str) -> str:
    """A text that is written as it is. Raises BadRowError where it is empty."""
    if not text:
        raise BadRowError(f"its {part} is empty")
    return text


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
