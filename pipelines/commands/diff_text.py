"""A difference of two evaluations in the terminal: side by side there, one below the other in a pipe."""

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tunemill.pipelines.commands.listing import FORCES_A_TERMINAL, listing, show, stdout
from tunemill.pipelines.config.spans import escaped
from tunemill.pipelines.report.diff_rows import ShownRow, headline, kinds, shown_row

if TYPE_CHECKING:
    from tunemill.pipelines.report.difference import Difference

# Of a text that both sides share, and of one that differs, in characters.
SHARED, DIFFERING = 300, 600


def show_difference(difference: "Difference", limit: int) -> None:
    """The tests, then of the rows that got better and of those that got worse `limit` each."""
    for line in headline(difference):
        show(escaped(line))
    show()
    show(listing(("metric", "result"), [(item.metric, item.words) for item in difference.metrics]))
    is_terminal = sys.stdout.isatty() or any(os.environ.get(name) for name in FORCES_A_TERMINAL)
    for title, rows in kinds(difference):
        show()
        show(title + ("" if len(rows) <= limit else f"; the first {limit}, --limit N shows more"))
        for pair in rows[:limit]:
            shown = shown_row(pair, difference.main)
            show()
            if is_terminal:
                stdout().print(_side_by_side(shown, difference))
            else:
                for line in _below(shown, difference):
                    show(line)


def _below(row: ShownRow, difference: "Difference") -> Iterator[str]:
    """The lines of a row for a pipe."""
    ours, theirs = row.values
    yield f"  {escaped(row.title)}: {difference.main.metric} {ours} -> {theirs}"
    for name, text in row.shared:
        yield f"    {escaped(name)}: {_one_line(text, SHARED)}"
    for name, one, other in row.differing:
        yield f"    {escaped(name)} of {escaped(difference.one.name)}: {_one_line(one, DIFFERING)}"
        yield f"    {escaped(name)} of {escaped(difference.other.name)}: {_one_line(other, DIFFERING)}"


def _side_by_side(row: ShownRow, difference: "Difference") -> Any:
    """A table of two columns for a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    main = difference.main
    above = [Text(escaped(row.title), style="bold")]
    above += [Text(f"{escaped(name)}: {_one_line(text, SHARED)}", style="dim") for name, text in row.shared]
    table = Table(box=SIMPLE_HEAD, expand=True, pad_edge=False)
    table.add_column("", no_wrap=True, overflow="fold")
    for side in (difference.one, difference.other):
        table.add_column(Text(escaped(side.name)), ratio=1, overflow="fold")
    table.add_row(Text(main.metric), *map(Text, row.values))
    for name, one, other in row.differing:
        table.add_row(Text(escaped(name)), *_marked(_lines(one), _lines(other)))
    return Group(*above, table)


def _marked(one: str, other: str) -> tuple[Any, Any]:
    """Both texts, with what only one of them has in its colour."""
    from rich.text import Text

    from tunemill.pipelines.report.diff_words import differing_words

    sides = (Text(), Text())
    for ours, theirs in differing_words(one, other):
        same = ours == theirs
        sides[0].append(ours, style="" if same else "red")
        sides[1].append(theirs, style="" if same else "green")
    return sides


def _one_line(text: str, most: int) -> str:
    return escaped(_cut(text.replace("\n", "⏎"), most))


def _lines(text: str) -> str:
    return escaped(_cut(text, DIFFERING), keep="\n")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + "..."
