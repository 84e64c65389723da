"""Where a key or a value stands in the text that a person wrote, and how that place is shown to them."""

import re
import unicodedata
from typing import NamedTuple

# The line breaks of YAML.
BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
TAB = 4
CUT = "..."
# Controls, marks of writing direction, line separators, half characters, characters that nobody has defined.
UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"})


class Span(NamedTuple):
    """Part of one line: line and column count from 1, `end` is the column behind it.

    `source` is the whole line. With `override` it is no line of the file but an override as it was typed.
    """

    line: int
    column: int
    end: int
    source: str = ""
    override: bool = False


# What is said of the file as a whole.
WHOLE_FILE = Span(1, 1, 1)


def lines_of(text: str) -> list[str]:
    """The lines of a YAML as its marks count them."""
    return BREAK.split(text.removeprefix("\ufeff"))


def line_at(lines: list[str], number: int) -> str:
    """The line of this number, from 1; empty behind the last one."""
    return lines[number - 1] if 0 < number <= len(lines) else ""


def escaped(text: str, keep: str = "") -> str:
    """The text with everything that a terminal would obey, or not show, as an escape: `\\x1b`."""
    return "".join(letter if letter in keep else _shown(letter) for letter in text)


def pointer(span: Span, width: int) -> list[str]:
    """The line of a span and the marks below it, none of them wider than `width`; nothing for a blank line."""
    if not span.source.strip():
        return []
    width = max(width, 20)
    # A line may be as long as a file: only what can be shown is looked at.
    left = max(0, span.column - 1 - 2 * width)
    part = span.source[left : span.column - 1 + 2 * width]
    cells = _cells(part)
    first = min(span.column - 1 - left, len(cells))
    last = min(max(span.end - 1 - left, first + 1), len(cells))
    start, stop = _window(cells, first, last, width)
    before = CUT if start or left else ""
    after = CUT if stop < len(cells) or left + len(part) < len(span.source) else ""
    indent = len(before) + sum(size for _, size in cells[start:first])
    marked = sum(size for _, size in cells[first : min(last, stop)]) or 1
    text = "".join(shown for shown, _ in cells[start:stop])
    return [f"{before}{text}{after}".rstrip(), " " * indent + "^" + "~" * (marked - 1)]


def _window(cells: list[tuple[str, int]], first: int, last: int, width: int) -> tuple[int, int]:
    """The cells that are shown: all, or as many around the marked ones as fit beside the signs of what is cut."""
    if sum(size for _, size in cells) <= width:
        return 0, len(cells)
    room = width - 2 * len(CUT)
    start = stop = first
    used = 0
    while stop < last and used + cells[stop][1] <= room:
        used += cells[stop][1]
        stop += 1
    while True:
        grew = False
        if start and used + cells[start - 1][1] <= room:
            start -= 1
            used += cells[start][1]
            grew = True
        if stop < len(cells) and used + cells[stop][1] <= room:
            used += cells[stop][1]
            stop += 1
            grew = True
        if not grew:
            return start, stop


def _cells(line: str) -> list[tuple[str, int]]:
    """Each character as it is shown, and how many columns of a terminal that takes."""
    found: list[tuple[str, int]] = []
    column = 0
    for letter in line:
        shown = " " * (TAB - column % TAB) if letter == "\t" else _shown(letter)
        size = len(shown) if len(shown) != 1 else _size(letter)
        found.append((shown, size))
        column += size
    return found


def _size(letter: str) -> int:
    if unicodedata.category(letter) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in ("W", "F") else 1


def _shown(letter: str) -> str:
    if unicodedata.category(letter) not in UNPRINTABLE:
        return letter
    return letter.encode("unicode_escape").decode()
