"""From characters to tokens: which tokens of a conversation belong to whom, and which are trained on."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Encoding

from tunemill.stages.data.conversations.example import (
    Conversation,
    Ends,
    Ranges,
    TokenConversation,
    Turn,
)
from tunemill.stages.data.rows.labels import IGNORED

# An end token this many tokens behind a turn still belongs to it: templates put white space between.
END_DISTANCE = 3
# The role of text that the template adds of itself.
TEMPLATE_ROLE = "template"


@dataclass(frozen=True)
class Run:
    """Tokens `start` to `end` of a row, which belong to one role."""

    role: str
    start: int
    end: int


@dataclass(frozen=True)
class PlacedTurn:
    """A turn's tokens, and where its end-of-turn and end-of-sequence tokens are, -1 where it has none."""

    turn: Turn
    first: int
    end: int
    eot: int
    eos: int

    @property
    def closed(self) -> int:
        """The token after the turn and its end tokens."""
        return max(self.end, self.eot + 1, self.eos + 1)


def label(
    encoding: Encoding, conversation: Conversation, ends: Ends
) -> tuple[list[int], list[int], list[Run]]:
    """Token ids and labels of a conversation, and the runs of tokens by role, which cover all of them."""
    ids = encoding.ids
    placed = place(encoding, ids, conversation, ends)
    labels = [IGNORED] * len(ids)
    for item in placed:
        if item.turn.trained and item.turn.details:
            for index in detailed_tokens(encoding, item):
                labels[index] = ids[index]
        elif item.turn.trained:
            labels[item.first : item.end] = ids[item.first : item.end]
    closing = trained_ends(placed, ends)
    for index in [*closing, *between(placed, closing, ids, ends)]:
        labels[index] = ids[index]
    return ids, labels, role_runs(ids, placed, ends)


def label_tokens(conversation: TokenConversation, ends: Ends) -> tuple[list[int], list[Run]]:
    """Labels of a conversation that is tokens already, and its runs. Each turn has its end tokens in itself."""
    ids = conversation.ids
    labels = [IGNORED] * len(ids)
    placed: list[PlacedTurn] = []
    runs: list[Run] = []
    for turn in conversation.turns:
        own = ids[: turn.close]
        eot, eos = (_end_token(own, turn.end, wanted) for wanted in (ends.eot_ids, ends.eos_ids))
        placed.append(PlacedTurn(Turn(turn.role, 0, 0, turn.trained), turn.first, turn.end, eot, eos))
        if turn.trained:
            for index in range(turn.first, turn.end) if turn.details is None else turn.details:
                labels[index] = ids[index]
        _extend(runs, turn.role, turn.close)
    for index in trained_ends(placed, ends):
        labels[index] = ids[index]
    return labels, runs


def place(encoding: Encoding, ids: list[int], conversation: Conversation, ends: Ends) -> list[PlacedTurn]:
    """The turns' tokens, in the turns' order. A token that is only partly inside of a turn counts as inside."""
    found = []
    for turn in conversation.turns:
        first, end = _token_bounds(encoding, turn.start, turn.end, len(conversation.text))
        end = end if turn.start < turn.end else first
        eot, eos = (_end_token(ids, end, wanted) for wanted in (ends.eot_ids, ends.eos_ids))
        found.append(PlacedTurn(turn, first, end, eot, eos))
    return found


def detailed_tokens(encoding: Encoding, item: PlacedTurn) -> Sequence[int]:
    """The tokens in the trained parts of a turn that has such."""
    found: list[int] = []
    for ranges in item.turn.details:
        first, end = _token_bounds(encoding, ranges.start, ranges.end, encoding.offsets[-1][1])
        found.extend(first + index for index in tokens_of_parts(ranges, encoding.offsets[first:end]))
    return found


def trained_ends(placed: Sequence[PlacedTurn], ends: Ends) -> list[int]:
    """The end tokens that are trained on. An empty turn has none."""
    every = "all" in (ends.train_on_eos, ends.train_on_eot)
    full = [item for item in placed if item.first < item.end and (item.turn.trained or every)]
    found: list[int] = []
    for rule, indices in (
        (ends.train_on_eot, [(item.eot, item.turn.trained) for item in full if item.eot >= 0]),
        (ends.train_on_eos, [(item.eos, item.turn.trained) for item in full if item.eos >= 0]),
    ):
        if rule == "last":
            found += [index for index, _ in indices[-1:]]
        elif rule != "none":
            found += [index for index, trained in indices if trained or rule == "all"]
    return found


def between(
    placed: Sequence[PlacedTurn], closing: Sequence[int], ids: Sequence[int], ends: Ends
) -> list[int]:
    """The tokens from what a trained turn says to its trained end: a model has to write them on the way.

    End tokens among them follow the rules for those.
    """
    trained = set(closing)
    found: list[int] = []
    for item in placed:
        last = max((index for index in (item.eot, item.eos) if index in trained), default=item.end)
        if item.turn.trained and not item.turn.details and item.end < last:
            others = (
                i for i in range(item.end, last) if ids[i] not in ends.eot_ids and ids[i] not in ends.eos_ids
            )
            found.extend(others)
    return found


def role_runs(ids: Sequence[int], placed: Sequence[PlacedTurn], ends: Ends) -> list[Run]:
    """Runs of tokens that cover the row. What opens a turn belongs to its role, and so do the tokens that end it.

    What the template adds of itself is told by its own end tokens: it lies before the last of them in a gap.
    """
    runs: list[Run] = []
    position = 0
    for item in sorted(placed, key=_first):
        opening = position
        for index in range(item.first - 1, position - 1, -1):
            if ids[index] in ends.eot_ids or ids[index] in ends.eos_ids:
                opening = index + 1
                break
        _extend(runs, TEMPLATE_ROLE, opening)
        position = max(position, item.closed)
        _extend(runs, item.turn.role, position)
    _extend(runs, runs[-1].role if runs else TEMPLATE_ROLE, len(ids))
    return runs


def _first(item: PlacedTurn) -> int:
    return item.first


def _extend(runs: list[Run], role: str, end: int) -> None:
    """Let the runs reach to `end`; what is added belongs to the role."""
    start = runs[-1].end if runs else 0
    if runs and runs[-1].role == role and end > start:
        runs[-1] = Run(role, runs[-1].start, end)
    elif end > start:
        runs.append(Run(role, start, end))


def _token_bounds(encoding: Encoding, start: int, end: int, characters: int) -> tuple[int, int]:
    """First token that reaches beyond character `start`, and first token that begins at `end` or later."""
    first = encoding.char_to_token(start) if start < characters else len(encoding)
    last = encoding.char_to_token(end) if end < characters else len(encoding)
    if first is None or last is None:
        return _bounds_from_offsets(encoding.offsets, start, end)
    covered = encoding.token_to_chars(last) if last < len(encoding) else None
    return first, last + 1 if covered and covered[0] < end else last


def _bounds_from_offsets(offsets: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int]:
    """The same where a character belongs to no token, because the tokenizer's normalizer dropped it."""
    first = bisect_right(offsets, start, key=lambda offset: offset[1])
    return first, bisect_left(offsets, end, key=lambda offset: offset[0])


def tokens_of_parts(ranges: Ranges, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Which of the tokens lie in the trained parts.

    A token reaches to the next one. One that a part cuts, beyond its first or last character, belongs to the
    part. A part ends at its last character, `end - 1`.
    """
    starts = [max(start, ranges.start) for start, _ in offsets]
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
