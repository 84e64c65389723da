"""Stored log probabilities of a reference model: the answers of each row, in files of Arrow."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Float32s = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]


def write_log_p(file: Path, answers: Sequence[str], rows: int, numbers: Int64s, log_p_na: Float32s) -> None:
    """A column for each of the A answers, of so many rows; null but for those with one of the N `numbers`."""
    columns = {}
    for place, answer in enumerate(answers):
        values = np.zeros(rows, np.float32)
        values[numbers] = log_p_na[:, place]
        missing = np.ones(rows, np.bool_)
        missing[numbers] = False
        columns[answer] = pa.array(values, mask=missing)
    table = pa.table(columns)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def read_log_p(file: Path, answers: Sequence[str], numbers: Int64s) -> Float32s:
    """[N, A] of the rows with these numbers, none of which may be null."""
    table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
    columns = [table[answer].take(pa.array(numbers)) for answer in answers]
    assert not any(column.null_count for column in columns), (
        f"{file}: other rows are trained on than were scored"
    )
    return np.stack([column.to_numpy().astype(np.float32) for column in columns], axis=1)
