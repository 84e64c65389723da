"""Preference rows to lengths that are allowed: dropped, their answers cut off, or refused."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunemill.stages.data.preference_data.rows import PreferenceRows
from tunemill.stages.data.rows.limits import Strategy
from tunemill.stages.errors import RowError

LISTED_ROWS = 10


@dataclass(frozen=True)
class Fitted:
    """The rows that fit, and how many of them only because an answer was cut off."""

    rows: PreferenceRows
    truncated: int


def fit(rows: PreferenceRows, longest: int, strategy: Strategy, names: Sequence[str]) -> Fitted:
    """Rows of at most `longest` tokens. Raises RowError, naming dataset and row, where long ones are forbidden.

    Only answers are cut off: a row whose prompt leaves no room for one is dropped.
    """
    long = rows.length > longest
    if strategy == "raise" and long.any():
        raise RowError(describe_long(rows.take(long), longest, names))
    if strategy == "drop":
        return Fitted(rows.take(~long), 0)
    fits = ~long | (rows.prompt_length < longest)
    return Fitted(rows.cut_to(longest).take(fits), int(np.count_nonzero(long & fits)))


def describe_long(rows: PreferenceRows, longest: int, names: Sequence[str]) -> str:
    """Which rows are too long for `excess_length_strategy: raise`, the first ten."""
    order = np.lexsort((rows.source_row, rows.dataset))[:LISTED_ROWS]
    listed = "\n".join(
        f"  {names[rows.dataset[i] - 1]}, row {rows.source_row[i]}: {rows.length[i]} tokens" for i in order
    )
    more = f"\n  and {len(rows) - LISTED_ROWS} more" if len(rows) > LISTED_ROWS else ""
    what = "1 row is" if len(rows) == 1 else f"{len(rows)} rows are"
    return (
        f"{what} longer than sequence_len: {longest}, and excess_length_strategy: raise forbids it "
        f"(drop or truncate would take them):\n{listed}{more}"
    )
