"""A teacher's likeliest tokens at each trained token: writing them row by row, and reading them by row of training."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tunemill.stages.artifacts import TeacherLogProbs, TrainingData
from tunemill.stages.data.rows.columns import column, list_column, offsets_of_lengths
from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.data.rows.mapped import Tokens
from tunemill.stages.data.rows.token_rows import open_writer

Float32s = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]

SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("positions", pa.list_(pa.int32())),
        ("counts", pa.list_(pa.int32())),
        ("token_ids", pa.list_(pa.int32())),
        ("log_p", pa.list_(pa.float32())),
    ]
)


class Taught(NamedTuple):
    """What a teacher says of the N trained tokens of a row: up to K tokens for each, -inf where there are fewer."""

    token_ids_nk: Tokens
    log_p_nk: Float32s


@dataclass(frozen=True)
class TaughtRow:
    """A row to be stored, flat as in the file. `row`: its number, from 1."""

    row: int
    positions: Tokens
    counts: Tokens
    token_ids: Tokens
    log_p: Float32s


def trained_positions(labels: Tokens) -> Int64s:
    """The trained tokens of a row: the first is predicted from nothing, and is none of them."""
    found: Int64s = np.flatnonzero(labels[1:] != IGNORED) + 1
    return found


def teacher_writer(path: Path) -> AbstractContextManager[pa.RecordBatchFileWriter]:
    """A file that takes batches of `taught_batch`."""
    return open_writer(path, SCHEMA)


def taught_batch(rows: Sequence[TaughtRow]) -> pa.RecordBatch:
    """Rows as they are stored."""
    columns = [column([row.row for row in rows], pa.int64())]
    for name in ("positions", "counts", "token_ids"):
        parts = [getattr(row, name) for row in rows]
        lengths = np.fromiter(map(len, parts), np.int64, len(parts))
        columns.append(list_column(_flat(parts, np.int32), lengths, pa.int32()))
    log_p = _flat([row.log_p for row in rows], np.float32)
    values = pa.Array.from_buffers(pa.float32(), len(log_p), [None, pa.py_buffer(log_p)])
    columns.append(pa.ListArray.from_arrays(columns[-1].offsets, values))
    return pa.record_batch(columns, schema=SCHEMA)


def _flat(parts: Iterable[npt.NDArray[np.generic]], kind: type[np.generic]) -> npt.NDArray[np.generic]:
    return np.ascontiguousarray(np.concatenate([np.zeros(0, kind), *parts]), kind)


class TeacherRows:
    """What teachers say of the rows of training data, memory-mapped: only what is looked at is read.

    A teacher that was run over the training data has its rows; log-probabilities that lie beside datasets have theirs,
    and `sources.arrow` of the training data says which.
    """

    def __init__(self, teachers: Sequence[TeacherLogProbs], training_data: TrainingData) -> None:
        self._tables = [pa.ipc.open_file(pa.memory_map(str(one.rows))).read_all() for one in teachers]
        self._numbers = [_int64s(table["row"]) for table in self._tables]
        self._sources = None
        if training_data.sources.exists():
            table = pa.ipc.open_file(pa.memory_map(str(training_data.sources))).read_all()
            self._sources = [_int64s(table[name]) for name in ("dataset", "source_row", "start")]

    def of(self, row: int, labels: Tokens) -> Taught:
        """What is said of the trained tokens of a row of the training data, which has these labels."""
        dataset, number, start = 1, row + 1, 0
        if self._sources is not None:
            dataset, number, start = (int(part[row]) for part in self._sources)
        table = self._tables[dataset - 1]
        place = int(np.searchsorted(self._numbers[dataset - 1], number))
        stored, counts, token_ids, log_p = (
            table[name][place].values.to_numpy() for name in ("positions", "counts", "token_ids", "log_p")
        )
        within = (stored > start) & (stored < start + len(labels))
        wanted = trained_positions(labels)
        assert np.array_equal(stored[within] - start, wanted), f"row {row + 1}: the teacher saw other labels"
        ends = offsets_of_lengths(counts)
        first = int(np.argmax(within)) if within.any() else 0
        counts = counts[within]
        flat = slice(int(ends[first]), int(ends[first + len(counts)]))
        return padded(counts, token_ids[flat], log_p[flat])


def padded(counts: Tokens, token_ids: Tokens, log_p: Float32s) -> Taught:
    """Flat lists of these lengths side by side."""
    widest = int(counts.max(initial=0))
    there_nk = np.arange(widest)[None, :] < counts[:, None]
    found = Taught(np.zeros(there_nk.shape, np.int32), np.full(there_nk.shape, -np.inf, np.float32))
    found.token_ids_nk[there_nk] = token_ids
    found.log_p_nk[there_nk] = log_p
    return found


def _int64s(values: pa.ChunkedArray) -> Int64s:
    found: Int64s = values.to_numpy().astype(np.int64)
    return found
