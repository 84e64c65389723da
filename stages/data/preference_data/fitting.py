"""Preference rows to lengths that are allowed: dropped, their answers cut off, or refused.

What teaches nothing then is left out: equal answers, and answers that say nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunemill.stages.data.preference_data.rows import PreferenceRows
from tunemill.stages.data.rows.limits import Strategy
from tunemill.stages.errors import RowError

LISTED_ROWS = 10


@dataclass(frozen=True)
class Fitted:
    """The rows to learn from, and how many of them only fit because an answer was cut off.

    `too_long` rows do not fit. Of those that do, `empty` ones have an answer that says nothing, and `equal` ones
    answers that do not differ, as far as they fit.
    """

    rows: PreferenceRows
    truncated: int
    too_long: int
    empty: int
    equal: int


def fit(rows: PreferenceRows, longest: int, strategy: Strategy, names: Sequence[str]) -> Fitted:
    """Rows of at most `longest` tokens that teach something. Only answers are cut off: no prompt is.

    Raises RowError, naming dataset and row, where long ones are forbidden.
    """
    long = rows.length > longest
    if strategy == "raise" and long.any():
        raise RowError(describe_long(rows.take(long), longest, names))
    # A prompt may leave no room for an answer.
    fits = ~long if strategy == "drop" else ~long | (rows.prompt_length < longest)
    kept = rows.cut_to(longest).take(fits)
    empty = kept.empty
    equal = kept.equal & ~empty
    teaches = ~empty & ~equal
    return Fitted(
        kept.take(teaches),
        truncated=int(np.count_nonzero(long[fits] & teaches)),
        too_long=int(np.count_nonzero(~fits)),
        empty=int(np.count_nonzero(empty)),
        equal=int(np.count_nonzero(equal)),
    )


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
