"""A difference of two evaluations as one page for a browser: no script, nothing fetched, every text escaped."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from tunemill.pipelines.report.diff_rows import ShownRow, headline, kinds, shown_row
from tunemill.pipelines.report.diff_words import differing_words

if TYPE_CHECKING:
    from tunemill.pipelines.report.difference import Difference

STYLE = """
:root { color-scheme: light dark; --line: #8885; --gone: #f001; --new: #0a01; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.1rem; margin-top: 2.5rem; }
table { border-collapse: collapse; width: 100%; table-layout: fixed; margin: .5rem 0 0; }
th, td { border: 1px solid var(--line); padding: .35rem .6rem; text-align: left; vertical-align: top; }
th:first-child { width: 9rem; font-weight: normal; }
td, dd { white-space: pre-wrap; overflow-wrap: anywhere; }
article { border-top: 1px solid var(--line); padding: .8rem 0; }
h3 { font-size: 1rem; margin: 0 0 .3rem; }
dl { margin: 0; display: grid; grid-template-columns: 9rem 1fr; gap: .1rem .6rem; }
dd { margin: 0; max-height: 12rem; overflow: auto; }
del { background: var(--gone); } ins { background: var(--new); }
del, ins { text-decoration: none; border-bottom: 2px solid; }
del { border-color: #c33; } ins { border-color: #283; }
"""


def page(difference: "Difference", limit: int) -> str:
    """The whole page; of the rows that got better and of those that got worse `limit` each."""
    title, *where = headline(difference)
    body = [
        f"<h1>{escape(title)}</h1>",
        *(f"<p>{escape(line)}</p>" for line in where),
        "<table><tr><th>metric</th><th>result</th></tr>",
        *(
            f"<tr><th>{escape(item.metric)}</th><td>{escape(item.words)}</td></tr>"
            for item in difference.metrics
        ),
        "</table>",
    ]
    for words, rows in kinds(difference):
        more = "" if len(rows) <= limit else f"; the first {limit}"
        body.append(f"<h2>{escape(words + more)}</h2>")
        for pair in rows[:limit]:
            body += _row(shown_row(pair, difference.main), difference)
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
            *body,
            "</body></html>\n",
        ]
    )


def _row(row: ShownRow, difference: "Difference") -> Iterator[str]:
    yield f"<article><h3>{escape(row.title)}</h3>"
    if row.shared:
        shared = (f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in row.shared)
        yield f"<dl>{''.join(shared)}</dl>"
    names = (difference.one.name, difference.other.name)
    yield _cells("th", ["", *map(escape, names)], "<table>")
    yield _cells("td", [escape(difference.main.metric), *map(escape, row.values)])
    for name, one, other in row.differing:
        yield _cells("td", [escape(name), *_marked(one, other)])
    yield "</table></article>"


def _cells(kind: str, cells: Sequence[str], before: str = "") -> str:
    first, *others = cells
    return f"{before}<tr><th>{first}</th>" + "".join(f"<{kind}>{cell}</{kind}>" for cell in others) + "</tr>"


def _marked(one: str, other: str) -> tuple[str, str]:
    """Both texts, with what only one of them has marked."""
    ours, theirs = [], []
    for left, right in differing_words(one, other):
        same = left == right
        ours.append(escape(left) if same else left and f"<del>{escape(left)}</del>")
        theirs.append(escape(right) if same else right and f"<ins>{escape(right)}</ins>")
    return "".join(ours), "".join(theirs)
