"""From characters to tokens: which tokens of a conversation are trained on."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Encoding

from tunemill.stages.tokenized.example import Conversation, Ends, Part, Turn

IGNORED = -100
# An end token this many tokens behind a turn still belongs to it: templates put white space between.
END_DISTANCE = 3


@dataclass(frozen=True)
class Run:
    """Tokens `start` to `end` of a row, which belong to one role."""

    role: str
    start: int
    end: int


def label(
    encoding: Encoding, conversation: Conversation, ends: Ends
) -> tuple[list[int], list[int], list[Run]]:
    """Token ids and labels of a conversation, and the runs of tokens by role.

    A token that is only partly inside of a turn counts as inside.
    """
    ids = encoding.ids
    labels = [IGNORED] * len(ids)
    last_eos = last_eot = -1
    runs: list[Run] = []
    for turn in conversation.turns:
        first, end = _token_bounds(encoding, turn.start, turn.end, len(conversation.text))
        if turn.trained and turn.details is None:
            labels[first:end] = ids[first:end]
        elif turn.trained and turn.details is not None:
            for index in _detailed_tokens(turn.details, turn, encoding.offsets[first:end]):
                labels[first + index] = ids[first + index]
        eot = _end_token(ids, end, ends.eot_ids)
        eos = _end_token(ids, end, ends.eos_ids)
        for found, rule in ((eot, ends.train_on_eot), (eos, ends.train_on_eos)):
            if found >= 0 and (rule == "all" or (rule == "turn" and turn.trained)):
                labels[found] = ids[found]
        if turn.trained or "all" in (ends.train_on_eos, ends.train_on_eot):
            last_eot = eot if eot >= 0 else last_eot
            last_eos = eos if eos >= 0 else last_eos
        runs.append(Run(turn.role, runs[-1].end if runs else 0, max(end, eot + 1, eos + 1)))
    for found, rule in ((last_eot, ends.train_on_eot), (last_eos, ends.train_on_eos)):
        if rule == "last" and found >= 0:
            labels[found] = ids[found]
    return ids, labels, _cover(runs, len(ids))


def _token_bounds(encoding: Encoding, start: int, end: int, characters: int) -> tuple[int, int]:
    """First token that reaches beyond character `start`, and first token that begins at `end` or later."""
    first = encoding.char_to_token(start)
    last = encoding.char_to_token(end) if end < characters else len(encoding)
    if first is None or last is None:
        return _bounds_from_offsets(encoding.offsets, start, end)
    covered = encoding.token_to_chars(last) if last < len(encoding) else None
    return first, last + 1 if covered and covered[0] < end else last


def _bounds_from_offsets(offsets: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int]:
    """The same where a character belongs to no token, because the tokenizer's normalizer dropped it."""
    first = bisect_right(offsets, start, key=lambda offset: offset[1])
    return first, bisect_left(offsets, end, key=lambda offset: offset[0])


def _detailed_tokens(details: Sequence[Part], turn: Turn, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Which of the turn's tokens lie in the trained ranges.

    A token reaches to the next one. One that a range cuts, beyond its first or last character, belongs to the
    range. A range ends at its last character, `end - 1`.
    """
    starts = [max(start, turn.start) for start, _ in offsets]
    lasts = [*(start - 1 for start in starts[1:]), turn.end - 1]
    found: set[int] = set()
    for part in details:
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


def _cover(runs: list[Run], tokens: int) -> list[Run]:
    """The last run reaches to the end of the row."""
    if not runs:
        return []
    return [*runs[:-1], Run(runs[-1].role, runs[-1].start, tokens)]
