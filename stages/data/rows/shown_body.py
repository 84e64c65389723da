"""The first rows of tokenized data and of sequences, to be looked at."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from tunemill.stages.data.conversations.pieces import Piece, pieces
from tunemill.stages.data.rows.shown import ShownRow, ShownTokens, first_rows, shown_tokens

ROWS = "rows.arrow"
# Rows with steps have classes as labels.
STEP = "step"


def tokenized_rows(data: Path, _words: Tokenizer, count: int) -> Iterator[ShownRow]:
    """Rows with roles. A step that is judged is scored at its last token, and says with which class."""
    for row in first_rows(data / ROWS, count):
        ids, labels = row["input_ids"], row["labels"]
        judged = STEP in row["roles"]
        found = pieces(labels, row["roles"], row["role_ends"])
        shown = (_judged(piece, ids, labels) if judged else _trained(piece, ids) for piece in found)
        yield ShownRow(row["source_row"], tuple(shown))


def _trained(piece: Piece, ids: Sequence[int]) -> ShownTokens:
    return shown_tokens(piece.role, "trained" if piece.trained else "masked", ids, piece.start, piece.end)


def _judged(piece: Piece, ids: Sequence[int], labels: Sequence[int]) -> ShownTokens:
    if not piece.trained:
        return _trained(piece, ids)
    return shown_tokens(f"{piece.role}: {labels[piece.start]}", "scored", ids, piece.start, piece.end)


def sequences(data: Path, _words: Tokenizer, count: int) -> Iterator[ShownRow]:
    """Rows without roles, numbered in their order."""
    for number, row in enumerate(first_rows(data / ROWS, count), 1):
        found = pieces(row["labels"], ["text"], [len(row["input_ids"])])
        yield ShownRow(number, tuple(_trained(piece, row["input_ids"]) for piece in found))
