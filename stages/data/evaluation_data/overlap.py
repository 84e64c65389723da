"""Which rows to evaluate on are trained on."""

import numpy as np

from tunemill.stages.data.rows.duplicates import cut_at, occurs_in
from tunemill.stages.data.rows.token_rows import Bools, Int64s, TokenRows


def trained_on(
    rows: TokenRows, whole: TokenRows, trained: TokenRows, longest: int, sequence_len: int, shortest: int
) -> Bools:
    """Which of the rows are in `trained`, whatever their labels, and also where one or the other lost its end.

    `rows` are those of `whole`, or pieces of them, of `longest` tokens at most. A row of `trained` with `sequence_len`
    tokens may be the beginning of a longer one, and no piece is shorter than `shortest`.
    """
    origin = origins(rows, whole)
    found = occurs_in(rows, trained)
    # What training would have made of the whole row, or of its beginning.
    made = whole.fitted(sequence_len, shortest)
    beginnings = made.take(np.unique(origins(made, whole), return_index=True)[1])
    found |= occurs_in(cut_at(sequence_len, beginnings), trained)[origin]
    # Where a row lost its end, the one that is trained on may go on.
    lost = (rows.length == longest) & (whole.length[origin] > longest)
    longer = trained.take(trained.length > longest)
    found[lost] |= occurs_in(rows.take(lost), cut_at(longest, longer))
    return found


def origins(rows: TokenRows, whole: TokenRows) -> Int64s:
    """For each row the index in `whole` of the row that it is, or is a piece of."""
    places = int(whole.place.max(initial=0)) + 1
    known = whole.chunk * places + whole.place
    order = np.argsort(known)
    found: Int64s = order[np.searchsorted(known[order], rows.chunk * places + rows.place)]
    return found
