"""What a person should look at before training on rows: figures of their quality, as one table of a stage's report."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunemill.stages.data.rows.duplicates import first_of_each
from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.data.rows.token_rows import Bools, TokenRows
from tunemill.stages.report import Report, Scalar

TITLE = "Quality"
COLUMNS = ("figure", "count", "of", "share")


@dataclass(frozen=True)
class Figure:
    """So many of so many; `title` is what a person reads.

    `name` is that of the figure in the summary, for one that should be looked at where it is not 0.
    """

    title: str
    count: int
    of: int
    name: str | None = None

    @property
    def share(self) -> float:
        return round(self.count / self.of, 6) if self.of else 0.0


def say_quality(figures: Sequence[Figure], report: Report) -> None:
    """One table of all; and as figures of the stage, the counts that should be looked at."""
    report.summary(**{figure.name: figure.count for figure in figures if figure.name and figure.count})
    rows: list[Sequence[Scalar]] = [
        (figure.title, figure.count, figure.of, figure.share) for figure in figures
    ]
    report.table(TITLE, COLUMNS, rows)


def figures_of_rows(rows: TokenRows, once_each: bool) -> list[Figure]:
    """What there is to say of rows of tokens; `once_each`: none of them occurs again."""
    repeated = 0 if once_each else int((~first_of_each(rows)).sum())
    cut = int(cut_in_answers(rows).sum())
    return [
        Figure("rows that occur again (tokens and labels)", repeated, len(rows), "repeated_rows"),
        Figure("rows cut in the middle of an answer", cut, len(rows), "rows_cut_in_answer"),
    ]


def cut_in_answers(rows: TokenRows) -> Bools:
    """Where a row lost its end in the middle of what is trained on, as an answer without its end.

    Rows that are split into several lose nothing.
    """
    found = np.zeros(len(rows), np.bool_)
    for chunk, of_chunk in rows.by_chunk():
        of_chunk = of_chunk[~rows.splits[of_chunk]]
        ends = rows.start[of_chunk] + rows.length[of_chunk]
        lost = (ends < chunk.offsets[rows.place[of_chunk] + 1]) & (rows.length[of_chunk] > 0)
        of_chunk, ends = of_chunk[lost], ends[lost]
        found[of_chunk] = (chunk.labels[ends - 1] != IGNORED) & (chunk.labels[ends] != IGNORED)
    return found
