"""Rows to lengths that are allowed: dropped, cut off or refused."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunemill.stages.data.rows.limits import Limits
from tunemill.stages.data.rows.token_rows import TokenRows
from tunemill.stages.errors import RowError

LISTED_ROWS = 10


@dataclass(frozen=True)
class Fitted:
    """The rows that fit, and those that did not, or were cut off to fit."""

    rows: TokenRows
    too_long: TokenRows
    too_short: TokenRows
    truncated: TokenRows


def fit(rows: TokenRows, limits: Limits, names: Sequence[str]) -> Fitted:
    """Rows within the limits. Raises RowError, naming dataset and row, where long ones are forbidden."""
    is_long = rows.length > limits.longest
    long, none = rows.take(is_long), rows.take(np.zeros(0, np.int64))
    if len(long) and limits.strategy == "raise":
        raise RowError(describe_long(long, limits, names))
    truncates = limits.strategy == "truncate"
    kept = rows.cut_to(limits.longest) if truncates else rows.take(~is_long)
    is_short = kept.length < limits.shortest
    return Fitted(
        kept.take(~is_short),
        too_long=none if truncates else long,
        too_short=kept.take(is_short),
        truncated=long if truncates else none,
    )


def describe_long(rows: TokenRows, limits: Limits, names: Sequence[str]) -> str:
    """Which rows are too long for `excess_length_strategy: raise`, the first ten."""
    order = np.lexsort((rows.source_row, rows.dataset))[:LISTED_ROWS]
    listed = "\n".join(
        f"  {names[rows.dataset[i] - 1]}, row {rows.source_row[i]}: {rows.length[i]} tokens" for i in order
    )
    more = f"\n  and {len(rows) - len(order)} more" if len(rows) > len(order) else ""
    what = "1 row is" if len(rows) == 1 else f"{len(rows)} rows are"
    return (
        f"{what} longer than {limits.key}: {limits.longest}, and excess_length_strategy: raise forbids it "
        f"(drop or truncate would take them):\n{listed}{more}"
    )
