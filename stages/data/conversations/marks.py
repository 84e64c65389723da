"""Invisible marks around texts, to see where a chat template puts them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

# Two planes of characters that mean nothing to anybody.
PRIVATE = range(0xF0000, 0x10FFFE)
# Characters that count as white space and hardly occur: a template that trims a text trims them too.
WHITE = "\x1c\x1d\x1e\x1f\x85\u1680\u2028\u2029\u205f"
RESERVED = re.compile(f"([{chr(PRIVATE[0])}-{chr(PRIVATE[-1])}{WHITE[:2]}])")


@dataclass(frozen=True)
class Field:
    """Where a text stands in the rendered conversation: characters `start` to `end`.

    The first character of the text as the row has it stands, or would, at `origin`. `inner_start` to `inner_end` is
    what is left without white space around it. `certain`: it is known which of that white space came out.
    """

    start: int
    end: int
    origin: int
    inner_start: int
    inner_end: int
    certain: bool


@dataclass(frozen=True)
class Marks:
    """Marks that do not occur in a text: a pair for each place, and a pair that counts as white space."""

    places: str
    outer: str
    pattern: re.Pattern[str]

    def pair(self, place: int) -> tuple[str, str]:
        """Opening and closing mark of a place."""
        return self.places[2 * place], self.places[2 * place + 1]

    def around(self, text: str, place: int, outer: bool) -> str:
        """A text that is more than white space with the marks of its place inside of its white space.

        With `outer` the white space is marked too, on its outside.
        """
        inner = text.strip()
        opening, closing = self.pair(place)
        start = text.index(inner)
        marked = f"{text[:start]}{opening}{inner}{closing}{text[start + len(inner) :]}"
        return f"{self.outer[0]}{marked}{self.outer[1]}" if outer and len(inner) < len(text) else marked

    def read(self, rendered: str) -> "Reading":
        """Take the marks out of a text."""
        pieces = self.pattern.split(rendered)
        positions: dict[str, list[int]] = {}
        position = 0
        for piece, mark in zip(pieces[::2], pieces[1::2], strict=False):
            position += len(piece)
            positions.setdefault(mark, []).append(position)
        return Reading(self, "".join(pieces[::2]), positions)


@dataclass(frozen=True)
class Reading:
    """A rendered text without its marks, and where each of them stood."""

    marks: Marks
    text: str
    positions: dict[str, list[int]]

    def at(self, place: int) -> tuple[int, int] | None:
        """Where the marks of a place stand, from the first opening to the last closing one."""
        opening, closing = (self.positions.get(mark) for mark in self.marks.pair(place))
        if not opening or not closing or closing[-1] < opening[0]:
            return None
        return opening[0], closing[-1]

    def field(self, text: str, place: int, outer: bool) -> Field | None:
        """Where `text` came out, whole and once; None where it did not. `outer`: its white space was marked too."""
        start, end = (self.positions.get(mark, []) for mark in self.marks.pair(place))
        inner = text.strip()
        if len(start) != 1 or len(end) != 1 or end[0] - start[0] != len(inner):
            return None
        before = text.index(inner)
        after = len(text) - before - len(inner)
        first, last = start[0] - before, end[0] + after
        opened = before > 0 and first in self.positions.get(self.marks.outer[0], [])
        closed = after > 0 and last in self.positions.get(self.marks.outer[1], [])
        certain = outer or not (
            (before and self.text[max(first, 0) : start[0]] == text[:before])
            or (after and self.text[end[0] : last] == text[len(text) - after :])
        )
        own_start, own_end = first if opened else start[0], last if closed else end[0]
        return Field(own_start, own_end, first, start[0], end[0], certain)


@lru_cache(maxsize=256)
def _usual(places: int) -> Marks:
    marks = "".join(map(chr, PRIVATE[: 2 * places]))
    return Marks(marks, WHITE[:2], RESERVED)


def marks_for(text: str, places: int) -> Marks | None:
    """Marks for as many places in a text that holds none of them; None where there are not enough."""
    # The search is slow; most texts are ASCII, which Python knows without looking.
    ascii_only = text.isascii() and WHITE[0] not in text and WHITE[1] not in text
    if ascii_only or not RESERVED.search(text):
        return _usual(places)
    taken = set(text)
    private = "".join(islice(_free(PRIVATE, taken), 2 * places))
    white = "".join(islice(_free(map(ord, WHITE), taken), 2))
    if len(private) < 2 * places or len(white) < 2:
        return None
    return Marks(private, white, re.compile(f"([{re.escape(private + white)}])"))


def _free(codes: Iterator[int] | range, taken: set[str]) -> Iterator[str]:
    return (chr(code) for code in codes if chr(code) not in taken)
