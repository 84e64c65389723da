"""Rows under headings, thousands of them in no time. `rich` makes tables of any kind, and takes a millisecond a row.

It is only imported for a terminal, and for text that is not plain ASCII: its import is a tenth of a plan's time.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunemill.pipelines.run.figures import figure

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.segment import Segment

GAP = "  "
PIPE_WIDTH = 160
# How a terminal shows what became of a gate.
GATE_COLOURS = {"passed": "green", "failed": "red", "cannot tell": "yellow", "not known": "dim"}
# How bad a check that failed is.
CHECK_COLOURS = {"error": "red", "warning": "yellow"}
# With one of these set, `rich` may take a pipe for a terminal.
FORCES_A_TERMINAL = ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")


@dataclass(frozen=True)
class Listing:
    """Text in columns, which `rich` prints as it does a table without lines. What is too wide goes on below.

    `colours`: how a terminal shows the words of the column `state`.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    colours: Mapping[str, str] = field(default_factory=dict)

    def lines(self, room: int) -> Iterator[tuple[int, list[str]]]:
        """The number of each row and its cells, as wide as their columns, in one or more lines; 0 are the headings."""
        given = (self.columns, *self.rows)
        widest = [max(map(_width, column)) for column in zip(*given, strict=True)]
        widths = narrowed(widest, room - len(GAP) * (len(widest) - 1))
        for number, row in enumerate(given):
            cells = [_folded(cell, width) for cell, width in zip(row, widths, strict=True)]
            for line in range(max(map(len, cells))):
                parts = (cell[line] if line < len(cell) else "" for cell in cells)
                yield number, [_padded(part, width) for part, width in zip(parts, widths, strict=True)]

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "Iterator[Segment]":
        """The headings in bold, then every row."""
        from rich.segment import Segment
        from rich.style import Style

        styles = {word: Style.parse(colour) for word, colour in self.colours.items()}
        state = self.columns.index("state") if styles else 0
        bold = Style(bold=True)
        for number, cells in self.lines(options.max_width):
            if styles and number and (word := cells[state].rstrip()) in styles:
                before = "".join(cell + GAP for cell in cells[:state])
                after = "".join(GAP + cell for cell in cells[state + 1 :])
                yield Segment(before)
                yield Segment(word, styles[word])
                yield Segment(cells[state][len(word) :] + after)
            else:
                yield Segment(GAP.join(cells), None if number else bold)
            yield Segment.line()


def show(item: Listing | str = "") -> None:
    """Print to stdout, in colour on a terminal; in a pipe tables keep their full width, or take that of COLUMNS."""
    if sys.stdout.isatty() or any(os.environ.get(name) for name in FORCES_A_TERMINAL):
        stdout().print(item, markup=False, emoji=False, soft_wrap=isinstance(item, str))
        return
    lines = [item] if isinstance(item, str) else (GAP.join(cells) for _, cells in item.lines(pipe_width()))
    sys.stdout.writelines(f"{line}\n" for line in lines)


def stdout() -> "Console":
    """Tables go to stdout; in a pipe they keep their full width, or take that of COLUMNS."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=pipe_width())


def pipe_width() -> int:
    """How wide what goes into a pipe may be."""
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isascii() and columns.isdigit() and int(columns) else PIPE_WIDTH


def listing(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], colours: Mapping[str, str] | None = None
) -> Listing:
    """Any rows under the given headings."""
    return Listing(tuple(columns), tuple(tuple(figure(cell) for cell in row) for row in rows), colours or {})


def readable_bytes(count: int) -> str:
    """`512 B`, `1.4 MB`."""
    from rich.filesize import decimal

    return decimal(count).replace("bytes", "B").replace("byte", "B")


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
    from rich.cells import cell_len

    return max(map(cell_len, _plain(text).split("\n")))


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _folded(text: str, width: int) -> list[str]:
    """The lines of a cell: between words where it can be."""
    if text.isascii() and text.isprintable() and len(text) <= width:
        return [text]
    from rich.console import Console
    from rich.text import Text

    wrapped = Text(_plain(text)).wrap(Console(), width, overflow="fold")
    return [line.plain.rstrip() for line in wrapped] or [""]


def _plain(text: str) -> str:
    """Without what moves the cursor."""
    from rich.text import Text

    return Text(text.expandtabs(8)).plain
