"""Whether the ways of one training step learn the same."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.kernels.row import FAILED, TRAINING_STEP, Row
from benchmarks.kernels.ways import EAGER, OURS

# Relative. The first loss differs by bfloat16's rounding in the forward; the last by that of every step before it.
FIRST, LAST = 0.005, 0.05


def with_losses_compared(rows: list[Row]) -> list[Row]:
    """The rows, a training step whose losses are not those of the plain model noted; FAILED if it is ours."""
    plain = {row.case: row for row in rows if row.kernel == TRAINING_STEP and row.way == EAGER}
    return [compared(row, plain.get(row.case)) for row in rows]


def compared(row: Row, plain: Row | None) -> Row:
    """One row beside that of the plain model."""
    if plain is None or row.first_loss is None or plain.first_loss is None:
        return row
    if row.last_loss is None or plain.last_loss is None:
        return row
    pairs = [(row.first_loss, plain.first_loss, FIRST), (row.last_loss, plain.last_loss, LAST)]
    # Not `>`: a loss that is NaN agrees with nothing.
    if all(abs(one - other) <= tolerance * abs(other) for one, other, tolerance in pairs):
        return row
    expected = f"without kernels {plain.first_loss:.4f} and {plain.last_loss:.4f}"
    text = f"losses {row.first_loss:.4f} and {row.last_loss:.4f}, {expected}"
    return replace(row, note=f"{FAILED}: {text}" if row.way == OURS else text)
