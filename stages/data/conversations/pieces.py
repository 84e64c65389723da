"""A row cut where its role, or whether it is trained on, changes: what a person looks at."""

from collections.abc import Sequence
from dataclasses import dataclass

from tunemill.stages.data.rows.labels import IGNORED


@dataclass(frozen=True)
class Piece:
    """Tokens `start` to `end` of a row: one role, all of them trained on or none."""

    role: str
    trained: bool
    start: int
    end: int


def pieces(labels: Sequence[int], roles: Sequence[str], role_ends: Sequence[int]) -> list[Piece]:
    """The pieces of one row, in order; together they are all of its tokens."""
    found: list[Piece] = []
    start = 0
    for role, end in zip(roles, role_ends, strict=True):
        while start < end:
            trained = labels[start] != IGNORED
            stop = next((i for i in range(start, end) if (labels[i] != IGNORED) != trained), end)
            found.append(Piece(role, trained, start, stop))
            start = stop
    return found
