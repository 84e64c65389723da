"""From characters to tokens: which tokens of a conversation belong to whom, and which are trained on."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tunemill.stages.data.conversations.example import (
    Conversation,
    Ends,
    Ranges,
    TokenConversation,
    TokenTurn,
    Turn,
)
from tunemill.stages.data.conversations.samples import Run, Samples
from tunemill.stages.data.engines.encoded import Spanned
from tunemill.stages.data.rows.columns import offsets_of_lengths
from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.data.rows.token_rows import Int64s

# An end token this many tokens behind a turn still belongs to it: templates put white space between.
END_DISTANCE = 3
# The role of text that the template adds of itself.
TEMPLATE_ROLE = "template"

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PlacedTurns:
    """Turns of a batch, in order: the row of each, its tokens `first` to `end`, and its end-of-turn and end-of-sequence
    tokens, -1 where it has none.

    Tokens are counted from the beginning of the batch. `whole`: all of what a turn says is trained on, not parts of it.
    """

    row: Int64s
    first: Int64s
    end: Int64s
    eot: Int64s
    eos: Int64s
    trained: Bools
    whole: Bools

    @property
    def closed(self) -> Int64s:
        """The token after each turn and its end tokens."""
        behind: Int64s = np.maximum(self.eot, self.eos) + 1
        return np.maximum(self.end, behind)


def label(spanned: Spanned, conversations: Sequence[Conversation], ends: Ends) -> Samples:
    """Labels of conversations, and the runs of tokens by role, which cover all of them."""
    turns = [turn for conversation in conversations for turn in conversation.turns]
    characters = _Characters(spanned, [len(conversation.text) for conversation in conversations])
    ending = _Ending(spanned.ids, spanned.offsets, ends)
    placed = place(turns, conversations, characters, ending)
    size = len(spanned.ids)
    trained = _ranges(placed.first, placed.end, placed.trained & placed.whole, size)
    for index in np.flatnonzero(placed.trained & ~placed.whole).tolist():
        for ranges in turns[index].details:
            trained[_detailed(ranges, int(placed.row[index]), characters)] = True
    closing = trained_ends(placed, ends)
    trained |= (
        _ranges(placed.end, last_ends(placed, closing, size), placed.trained & placed.whole, size)
        & ~ending.any
    )
    trained[closing] = True
    labels = np.where(trained, spanned.ids, np.int32(IGNORED))
    names = list(dict.fromkeys([TEMPLATE_ROLE, *(turn.role for turn in turns)]))
    codes = {name: code for code, name in enumerate(names)}
    role = np.array([codes[turn.role] for turn in turns], np.int64)
    runs = role_runs(role, placed, ending)
    return Samples(spanned.ids, labels, spanned.offsets, names, *runs)


class _Characters:
    """Where the characters of a batch's texts are in its tokens.

    A character that belongs to no token, because the tokenizer's normalizer dropped it, is where the next one is.
    """

    def __init__(self, spanned: Spanned, sizes: Sequence[int]) -> None:
        # One place more for each text: where it ends is before the next one begins.
        self.bases = offsets_of_lengths([size + 1 for size in sizes])
        before = np.repeat(self.bases[:-1].astype(np.int32), np.diff(spanned.offsets))
        self.starts = np.maximum.accumulate(before + spanned.starts)
        self.ends = np.maximum.accumulate(before + spanned.ends)

    def tokens(self, row: Int64s, start: Int64s, end: Int64s) -> tuple[Int64s, Int64s]:
        """First token that reaches beyond character `start`, and first token that begins at `end` or later."""
        base = self.bases[row]
        first = np.searchsorted(self.ends, base + start, "right")
        return first, np.searchsorted(self.starts, base + end, "left")


class _Ending:
    """Which tokens of a batch end a turn or a sequence."""

    def __init__(self, ids: npt.NDArray[np.int32], offsets: Int64s, ends: Ends) -> None:
        self.offsets = offsets
        self.eot, self.eos = (np.isin(ids, sorted(wanted)) for wanted in (ends.eot_ids, ends.eos_ids))
        self.any: Bools = self.eot | self.eos

    def behind(self, found: Bools, row: Int64s, end: Int64s) -> Int64s:
        """The first of the `found` tokens behind each turn, at most END_DISTANCE tokens away, or -1."""
        closing = np.full(len(end), -1, np.int64)
        for distance in range(END_DISTANCE, -1, -1):
            there = np.flatnonzero(end + distance < self.offsets[row + 1])
            there = there[found[end[there] + distance]]
            closing[there] = end[there] + distance
        return closing


def place(
    turns: Sequence[Turn], conversations: Sequence[Conversation], characters: _Characters, ending: _Ending
) -> PlacedTurns:
    """The turns' tokens, in the turns' order. A token that is only partly inside of a turn counts as inside."""
    row = np.repeat(np.arange(len(conversations)), [len(c.turns) for c in conversations])
    bounds = np.array([(turn.start, turn.end) for turn in turns], np.int64).reshape(-1, 2)
    first, end = characters.tokens(row, bounds[:, 0], bounds[:, 1])
    end = np.where(bounds[:, 0] < bounds[:, 1], end, first)
    return PlacedTurns(
        row,
        first,
        end,
        ending.behind(ending.eot, row, end),
        ending.behind(ending.eos, row, end),
        np.array([turn.trained for turn in turns], np.bool_),
        np.array([not turn.details for turn in turns], np.bool_),
    )


def label_tokens(conversation: TokenConversation, ends: Ends) -> tuple[list[int], list[Run]]:
    """Labels of a conversation that is tokens already, and its runs. Each turn has its end tokens in itself."""
    ids = conversation.ids
    labels = [IGNORED] * len(ids)
    runs: list[Run] = []
    for turn in conversation.turns:
        if turn.trained:
            for index in range(turn.first, turn.end) if turn.details is None else turn.details:
                labels[index] = ids[index]
        _extend(runs, turn.role, turn.close)
    for index in trained_ends(_placed_in(conversation.turns, ids, ends), ends).tolist():
        labels[index] = ids[index]
    return labels, runs


def _placed_in(turns: Sequence[TokenTurn], ids: list[int], ends: Ends) -> PlacedTurns:
    closing = [
        [_end_token(ids[: turn.close], turn.end, wanted) for turn in turns]
        for wanted in (ends.eot_ids, ends.eos_ids)
    ]
    bounds = np.array([(turn.first, turn.end) for turn in turns], np.int64).reshape(-1, 2)
    eot, eos = (np.array(column, np.int64) for column in closing)
    trained = np.array([turn.trained for turn in turns], np.bool_)
    return PlacedTurns(np.zeros(len(turns), np.int64), bounds[:, 0], bounds[:, 1], eot, eos, trained, trained)


def _detailed(ranges: Ranges, row: int, characters: _Characters) -> Int64s:
    """The tokens in the trained parts of a turn that has such."""
    base = int(characters.bases[row])
    (first,), (end,) = characters.tokens(*(np.array([value]) for value in (row, ranges.start, ranges.end)))
    starts = [start - base for start in characters.starts[first:end].tolist()]
    found: Int64s = np.array(tokens_of_parts(ranges, starts), np.int64) + first
    return found


def trained_ends(placed: PlacedTurns, ends: Ends) -> Int64s:
    """The end tokens that are trained on. An empty turn has none."""
    every = "all" in (ends.train_on_eos, ends.train_on_eot)
    full = (placed.first < placed.end) & (placed.trained | every)
    found: list[Int64s] = [np.empty(0, np.int64)]
    for rule, closing in ((ends.train_on_eot, placed.eot), (ends.train_on_eos, placed.eos)):
        chosen = np.flatnonzero(full & (closing >= 0))
        if rule == "last":
            rows = placed.row[chosen]
            chosen = chosen[np.diff(rows, append=-1) != 0]
        elif rule == "none":
            continue
        elif rule != "all":
            chosen = chosen[placed.trained[chosen]]
        found.append(closing[chosen])
    return np.concatenate(found)


def last_ends(placed: PlacedTurns, closing: Int64s, size: int) -> Int64s:
    """Of each turn the last of its end tokens that is trained on, or its end.

    What stands before it a model has to write on the way, but for end tokens, which follow the rules for those.
    """
    # One place more: turns without an end token look there.
    trained = np.zeros(size + 1, np.bool_)
    trained[closing] = True
    last = placed.end
    for found in (placed.eot, placed.eos):
        last = np.maximum(last, np.where(trained[found] & (found >= 0), found, -1))
    return last


def role_runs(role: Int64s, placed: PlacedTurns, ending: _Ending) -> tuple[Int64s, Int64s, Int64s]:
    """Runs of tokens that cover the rows: the role of each, where it ends in its row, and where each row's runs begin.

    `role` are the turns' roles; 0 is the template's. What opens a turn belongs to its role, and so do the tokens that
    end it. What the template adds of itself is told by its own end tokens: it lies before the last of them in a gap.
    """
    order = np.lexsort((placed.first, placed.row))
    row, first, role = placed.row[order], placed.first[order], role[order]
    begin, stop = ending.offsets[:-1], ending.offsets[1:]
    reached = np.maximum.accumulate(np.maximum(placed.closed[order], begin[row]))
    position = np.concatenate([begin[:1], reached[:-1]])[: len(row)]
    position = np.maximum(position, begin[row])
    closing_tokens = np.concatenate([[-1], np.flatnonzero(ending.any)])
    before = closing_tokens[np.searchsorted(closing_tokens, first) - 1]
    opening = np.where(before >= position, before + 1, position)
    # Of each turn the template's text before it and its own, and of each row what is left at its end.
    turns_before = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(begin)))])
    places = 2 * np.arange(len(row)) + row
    closing = 2 * turns_before[1:] + np.arange(len(begin))
    ends, roles, rows = (np.zeros(2 * len(row) + len(begin), np.int64) for _ in range(3))
    ends[places], ends[places + 1], ends[closing] = opening, reached, stop
    roles[places + 1] = role
    rows[places] = rows[places + 1] = row
    rows[closing] = np.arange(len(begin))
    return _cleared(ends, roles, rows, closing, begin)


def _cleared(
    ends: Int64s, roles: Int64s, rows: Int64s, closing: Int64s, begin: Int64s
) -> tuple[Int64s, Int64s, Int64s]:
    """Runs without the empty ones, neighbours of one role joined. Those at `closing` go on with the one before."""
    opens = np.diff(rows, prepend=-1) != 0
    starts = np.where(opens, begin[rows], np.concatenate([[0], ends[:-1]]))
    full = ends > starts
    numbers = np.arange(len(ends))
    own = full.copy()
    own[closing] = False
    latest = np.maximum.accumulate(np.where(own, numbers, -1))[closing]
    known = (latest >= 0) & (rows[latest] == rows[closing])
    roles[closing] = np.where(known, roles[latest], 0)
    ends, roles, rows = ends[full], roles[full], rows[full]
    last = (np.diff(roles, append=-1) != 0) | (np.diff(rows, append=-1) != 0)
    ends, roles, rows = ends[last], roles[last], rows[last]
    return roles, ends - begin[rows], offsets_of_lengths(np.bincount(rows, minlength=len(begin)))


def _ranges(first: Int64s, end: Int64s, chosen: Bools, size: int) -> Bools:
    """Which of `size` tokens lie in one of the chosen ranges."""
    first, end = first[chosen], np.maximum(first, end)[chosen]
    # Ranges that share a token are of one conversation, which has fewer than 32,768 turns.
    steps = np.zeros(size + 1, np.int16)
    np.add.at(steps, first, 1)
    np.subtract.at(steps, end, 1)
    inside: Bools = np.cumsum(steps[:size], dtype=np.int16) > 0
    return inside


def _extend(runs: list[Run], role: str, end: int) -> None:
    """Let the runs reach to `end`; what is added belongs to the role."""
    start = runs[-1].end if runs else 0
    if runs and runs[-1].role == role and end > start:
        runs[-1] = Run(role, runs[-1].start, end)
    elif end > start:
        runs.append(Run(role, start, end))


def tokens_of_parts(ranges: Ranges, starts: Sequence[int]) -> list[int]:
    """Which of the tokens, that begin at these characters, lie in the trained parts.

    A token reaches to the next one. One that a part cuts, beyond its first or last character, belongs to the
    part. A part ends at its last character, `end - 1`.
    """
    starts = [max(start, ranges.start) for start in starts]
    lasts = [*(start - 1 for start in starts[1:]), ranges.end - 1]
    found: set[int] = set()
    for part in ranges.parts:
        if not part.trained or not starts:
            continue
        begin = bisect_left(starts, part.start)
        if begin > 0 and lasts[begin - 1] > part.start:
            begin -= 1
        stop = bisect_right(lasts, part.end - 1) - 1
        if stop < len(starts) - 1 and starts[stop + 1] < part.end - 1:
            stop += 1
        found.update(range(begin, stop + 1))
    return sorted(found)


def _end_token(ids: list[int], start: int, wanted: frozenset[int]) -> int:
    for index in range(start, min(start + END_DISTANCE + 1, len(ids))):
        if ids[index] in wanted:
            return index
    return -1
