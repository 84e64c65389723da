"""Rows with the same prompt and answers: among those that are learnt from, and held out."""

from hashlib import blake2b

import numpy as np

from tunemill.stages.data.preference_data.rows import PreferenceRows, in_batches
from tunemill.stages.data.rows.quality import Figure
from tunemill.stages.data.rows.token_rows import Bools


def first_of_each(rows: PreferenceRows) -> Bools:
    """Where a row is the first of those with its prompt and answers."""
    seen: set[bytes] = set()
    first = np.ones(len(rows), np.bool_)
    for row, digest in enumerate(_digests(rows)):
        first[row] = digest not in seen
        seen.add(digest)
    return first


def figures(rows: PreferenceRows, held_out: PreferenceRows | None) -> list[Figure]:
    """How many rows occur again, and how many that are held out are learnt from too."""
    known = _digests(rows)
    seen = set(known)
    found = [
        Figure(
            "rows that occur again (prompt and answers)", len(known) - len(seen), len(known), "repeated_rows"
        )
    ]
    if held_out is not None:
        both = sum(digest in seen for digest in _digests(held_out))
        found.append(
            Figure("held-out rows that are learnt from too", both, len(held_out), "held_out_rows_learnt_from")
        )
    return found


def _digests(rows: PreferenceRows) -> list[bytes]:
    """A digest of each row's prompt and answers: 16 bytes."""
    found = []
    for batch in in_batches(len(rows)):
        for row in batch:
            values = [v.tolist() if isinstance(v, np.ndarray) else v for v in rows.values(row)]
            found.append(blake2b(repr(values).encode(), digest_size=16).digest())
        rows.release()
    return found
