"""How many rows of which dataset went where, as a table for a person; and how long the rows are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import numpy as np

from tunemill.stages.data.rows.token_rows import Int64s, TokenRows
from tunemill.stages.report import Report, Scalar

ALWAYS = ("rows", "too long", "too short", "nothing to train on", "kept", "tokens", "trained tokens")
BARS_WITHIN, BARS = 32, 64
BARS_WITHOUT_LIMIT = 40


def dataset_names(entries: Sequence[Mapping[str, Any]], count: int) -> list[str]:
    """What messages call each of `count` datasets: the last part of its path, or its number."""
    if len(entries) != count:
        return [f"dataset {number}" for number in range(1, count + 1)]
    paths = [entry.get("path") for entry in entries]
    names = [PurePath(path).name if isinstance(path, str) else "" for path in paths]
    return [
        name if name and names.count(name) == 1 else f"{name or 'dataset'} ({number})"
        for number, name in enumerate(names, 1)
    ]


@dataclass
class Tally:
    """Counts by dataset. `names[i]` is the dataset with the number i + 1."""

    names: list[str]
    _columns: dict[str, Int64s] = field(default_factory=dict)

    def count(self, column: str, rows: TokenRows) -> None:
        """These rows, by dataset."""
        self._columns[column] = np.bincount(rows.dataset, minlength=len(self.names) + 1)[1:]

    def keep(self, rows: TokenRows) -> None:
        """The rows that are left in the end, with their tokens."""
        self.count("kept", rows)
        for column, weights in (("tokens", rows.length), ("trained tokens", rows.trained)):
            sums = np.bincount(rows.dataset, weights=weights, minlength=len(self.names) + 1)
            self._columns[column] = sums[1:].astype(np.int64)

    def total(self, column: str) -> int:
        return int(self._columns[column].sum()) if column in self._columns else 0

    def table(self, report: Report) -> None:
        """One line for each dataset, and their sum where there are several."""
        shown = [name for name in self._columns if name in ALWAYS or self.total(name)]
        lines: list[Sequence[Scalar]] = [
            (dataset, *(int(self._columns[name][i]) for name in shown))
            for i, dataset in enumerate(self.names)
        ]
        if len(lines) > 1:
            lines.append(("all", *(self.total(name) for name in shown)))
        report.table("Rows by dataset", ["dataset", *shown], lines)


def plot_lengths(lengths: Int64s, limit: int, key: str, report: Report) -> None:
    """A histogram of row lengths with a border between bars at the limit; the last bar holds all longer rows."""
    longest = int(lengths.max(initial=1))
    borders = np.arange(BARS + 1) * (limit / BARS_WITHIN)
    borders = borders[: int(np.searchsorted(borders, longest)) + 1]
    # A row of `limit` tokens belongs into the bar that ends there.
    counts, _ = np.histogram(np.minimum(lengths, borders[-1]) - 0.5, borders)
    report.plot(
        f"Row lengths ({key} {limit})",
        borders[:-1].tolist(),
        counts.tolist(),
        x_label="tokens",
        y_label="rows",
        bars=True,
    )


def plot_counted(title: str, lengths: Mapping[int, int], report: Report) -> None:
    """A histogram of lengths in tokens that have no limit yet; `lengths`: a length -> how many rows have it."""
    numbers = np.array(sorted(lengths))
    weights = [lengths[number] for number in numbers.tolist()]
    rows, edges = np.histogram(numbers, bins=BARS_WITHOUT_LIMIT, weights=weights)
    report.plot(title, edges[:-1].tolist(), rows.tolist(), x_label="tokens", y_label="rows", bars=True)
