"""Rows under headings, thousands of them in no time. `rich` makes tables of any kind, and takes a millisecond a row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

GAP = "  "


@dataclass(frozen=True)
class Listing:
    """Text in columns, which `rich` prints as it does a table without lines. What is too wide goes on below."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """The headings in bold, then every row."""
        given = (self.columns, *self.rows)
        widest = [max(map(_width, column)) for column in zip(*given, strict=True)]
        widths = narrowed(widest, options.max_width - len(GAP) * (len(widest) - 1))
        bold = Style(bold=True)
        for number, row in enumerate(given):
            cells = [_folded(cell, width, console) for cell, width in zip(row, widths, strict=True)]
            for line in range(max(map(len, cells))):
                parts = (cell[line] if line < len(cell) else "" for cell in cells)
                text = GAP.join(_padded(part, width) for part, width in zip(parts, widths, strict=True))
                yield Segment(text, None if number else bold)
                yield Segment.line()


def listing(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Listing:
    """Any rows under the given headings."""
    return Listing(tuple(columns), tuple(tuple(figure(cell) for cell in row) for row in rows))


def figure(value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def stdout() -> Console:
    """Tables go to stdout; in a pipe they keep their full width."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=160)


def narrowed(widths: Sequence[int], room: int) -> list[int]:
    """The widths of columns that have so much room together: the widest lose first, and none loses all."""
    found = list(widths)
    while (excess := sum(found) - room) > 0 and (top := max(found)) > 1:
        tied = [index for index, width in enumerate(found) if width == top]
        next_widest = max((width for width in found if width < top), default=1)
        step = max(1, min(top - next_widest, excess // len(tied)))
        for index in tied[:excess]:
            found[index] -= step
    return found


def _width(text: str) -> int:
    if text.isascii() and text.isprintable():
        return len(text)
    return max(map(cell_len, _plain(text).split("\n")))


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _folded(text: str, width: int, console: Console) -> list[str]:
    """The lines of a cell: between words where it can be."""
    if text.isascii() and text.isprintable() and len(text) <= width:
        return [text]
    return [line.plain.rstrip() for line in Text(_plain(text)).wrap(console, width, overflow="fold")] or [""]


def _plain(text: str) -> str:
    """Without what moves the cursor."""
    return Text(text.expandtabs(8)).plain
