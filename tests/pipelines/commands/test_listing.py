"""Listings are printed as `rich` prints a table without lines, and lose nothing where there is too little room."""

import io
import random

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tunemill.pipelines.commands.listing import FORCES_A_TERMINAL, listing, narrowed, show

COLUMNS = ("stage", "a longer heading", "n")
WORDS = [
    "",
    "x",
    "base_model",
    "missing or damaged",
    "3f" * 32,
    "[/INST]",
    "größer",
    "数据集",
    "two\nlines",
    "a\tb",
    "-",
]


def printed(item, width, **options):
    out = io.StringIO()
    Console(file=out, width=width, highlight=False, **options).print(item)
    return out.getvalue()


def table(rows):
    made = Table(box=None, header_style="bold", pad_edge=False)
    for column in COLUMNS:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*map(escape, row))
    return made


def some_rows(seed, words=WORDS):
    draw = random.Random(seed)
    return [[draw.choice(words) for _ in COLUMNS] for _ in range(draw.randrange(8))]


@pytest.mark.parametrize("seed", range(20))
def test_where_there_is_room_it_is_what_rich_prints(seed):
    # A tab in a cell is where `rich` counts otherwise than it prints.
    rows = [[cell.expandtabs(8) for cell in row] for row in some_rows(seed)]
    assert printed(listing(COLUMNS, rows), 250) == printed(table(rows), 250)


def test_on_a_terminal_the_headings_are_bold():
    shown = printed(listing(COLUMNS, [["a", "b", "c"]]), 80, force_terminal=True, color_system="standard")
    assert shown.splitlines() == [
        "\x1b[1mstage  a longer heading  n\x1b[0m",
        "a      b                 c",
    ]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("width", [80, 40, 20, 12])
def test_where_there_is_none_no_letter_is_lost(seed, width):
    rows = some_rows(seed)
    shown = printed(listing(COLUMNS, rows), width)
    assert all(cell_len(line) <= width for line in shown.splitlines())

    def letters(text):
        return sorted("".join(text.split()))

    assert letters(shown) == letters("".join([*COLUMNS, *(cell for row in rows for cell in row)]))


def test_the_widest_columns_lose_first():
    assert narrowed([10, 30, 5], 45) == [10, 30, 5]
    assert narrowed([10, 30, 5], 40) == [10, 25, 5]
    assert narrowed([10, 30, 28], 30) == [10, 10, 10]
    assert sum(narrowed([7, 30, 28], 36)) == 36
    assert narrowed([3, 3, 3], 1) == [1, 1, 1]
    assert narrowed([10**9, 4], 84) == [80, 4]


def test_figures_are_short():
    shown = printed(listing(("a", "b", "c"), [[None, 1.23456, 7]]), 80)
    assert shown.splitlines()[1].split() == ["1.235", "7"]


def test_words_of_the_state_have_colours_on_a_terminal_and_nothing_else_has(monkeypatch, capsys):
    made = listing(("state", "why"), [["cached", "cached"], ["run", ":x: [b]"]], {"cached": "green"})
    for name in FORCES_A_TERMINAL:
        monkeypatch.delenv(name, raising=False)
    show(made)
    assert capsys.readouterr().out == "state   why    \ncached  cached \nrun     :x: [b]\n"
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    show(made)
    show("[b] :x:")
    assert capsys.readouterr().out.splitlines() == [
        "\x1b[1mstate   why    \x1b[0m",
        "\x1b[32mcached\x1b[0m  cached ",
        "run     :x: [b]",
        "[b] :x:",
    ]
