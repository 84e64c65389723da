"""Tokenized datasets written by hand."""

from pathlib import Path

import pyarrow as pa

from tunemill.stages.artifacts import TokenizedDataset
from tunemill.stages.data.rows.token_rows import (
    LONG_ROWS,
    NUMBERED_SCHEMA,
    SPLIT,
    list_array,
    open_writer,
)


def write_tokenized(
    folder: Path,
    rows: list[tuple[list[int], list[int]]],
    *,
    splits: bool = False,
    batch: int = 3,
    user_tokens: int = 0,
) -> TokenizedDataset:
    """A tokenized dataset of (input ids, labels), `batch` rows in each Arrow batch.

    The first `user_tokens` of each row are the user's, the others the assistant's.
    """
    roles = ["user", "assistant"] if user_tokens else ["assistant"]
    folder.mkdir(parents=True)
    schema = NUMBERED_SCHEMA.with_metadata({LONG_ROWS: SPLIT}) if splits else NUMBERED_SCHEMA
    with open_writer(folder / "rows.arrow", schema) as writer:
        for first in range(0, len(rows), batch):
            part = rows[first : first + batch]
            numbers = pa.array(range(first + 1, first + 1 + len(part)), pa.int64())
            columns = [
                list_array([ids for ids, _ in part]),
                list_array([labels for _, labels in part]),
                numbers,
                pa.array([roles] * len(part)),
                list_array([[user_tokens, len(ids)][-len(roles) :] for ids, _ in part]),
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))
    return TokenizedDataset(folder)


def counted(lengths: list[int], start: int = 0) -> list[tuple[list[int], list[int]]]:
    """Rows of these lengths; row i holds the token `start + i` throughout and trains on all but the first."""
    return [([start + i] * n, [-100] + [start + i] * (n - 1)) for i, n in enumerate(lengths)]
