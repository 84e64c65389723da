"""Tokenized rows, memory-mapped: only what is looked at is read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tunemill.stages.data.rows.token_rows import ROLE_COLUMNS

Tokens = npt.NDArray[np.int32]


class Rows:
    """`input_ids` and `labels` of an Arrow file (IPC), by row number; and `roles`, where it has them."""

    def __init__(self, path: Path) -> None:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        self._ids = table["input_ids"]
        self._labels = table["labels"]
        self._roles = [table[name] for name in ROLE_COLUMNS if name in table.column_names]
        self.lengths: npt.NDArray[np.int64] = pc.list_value_length(self._ids).to_numpy().astype(np.int64)
        """Tokens of each row."""

    def __len__(self) -> int:
        return len(self._ids)

    def ids(self, row: int) -> Tokens:
        """Token ids of one row: [tokens], int32."""
        return np.asarray(self._ids[row].values, dtype=np.int32)

    def labels(self, row: int) -> Tokens:
        """Labels of one row: [tokens], int32, -100 where not trained."""
        return np.asarray(self._labels[row].values, dtype=np.int32)

    def roles(self, row: int) -> list[tuple[str, int]]:
        """Whose the tokens are: roles, each with the token that it ends before; none where that is unknown."""
        return list(zip(*(column[row].as_py() for column in self._roles), strict=True))


def batches_by_length(
    rows: Rows, numbers: Sequence[int], batch_size: int, max_tokens: int
) -> list[list[int]]:
    """Row numbers in batches of like length, so that padding is small.

    A batch holds at most `batch_size` rows and `max_tokens` tokens with padding, and at least one row. Rows of one
    length are ordered by content: the batches do not depend on the order in which rows are stored.
    """
    batches: list[list[int]] = []
    for row in sorted(numbers, key=lambda row: (int(rows.lengths[row]), rows.ids(row).tobytes())):
        fits = batches and len(batches[-1]) < batch_size
        if fits and (len(batches[-1]) + 1) * int(rows.lengths[row]) <= max_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
