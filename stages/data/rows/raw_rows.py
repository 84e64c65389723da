"""Reading the rows of a RawDataset, a batch at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import pyarrow as pa

from tunemill.stages.data.conversations.example import RowValue
from tunemill.stages.data.rows.nulls import without_nulls
from tunemill.stages.data.sources.json_exactly import values_of
from tunemill.stages.errors import RowPlace

NULL = "null"


@dataclass(frozen=True)
class RawRow:
    """A row, as text too, and its number in the dataset, from 1.

    `value` is without null fields, but within the arguments of calls and the parameters of tools.
    """

    value: RowValue
    text: str
    number: int
    place: RowPlace


def raw_batches(path: Path, name: str) -> Iterator[list[RawRow]]:
    """The rows of a dataset, parsed, in the batches that they are stored in.

    `name` is what the dataset is called in messages, where its rows do not say which file they come from.
    """
    return map(reader_of_batches(path, name), batch_numbers(path))


@dataclass(frozen=True)
class BatchNumber:
    """Rows of a stored batch: its number, how many rows there are before them, which of its rows is first, how many."""

    index: int
    before: int
    first: int
    rows: int

    def cut(self, rows: int) -> list["BatchNumber"]:
        """So many rows, and the others; all of them where there are no more."""
        if self.rows <= rows:
            return [self]
        others = BatchNumber(self.index, self.before + rows, self.first + rows, self.rows - rows)
        return [replace(self, rows=rows), others]


def batch_numbers(path: Path) -> list[BatchNumber]:
    """The batches of a dataset. Nothing is read of them but how long they are."""
    with pa.memory_map(str(path)) as mapped:
        reader = pa.ipc.open_file(mapped)
        lengths = [reader.get_batch(index).num_rows for index in range(reader.num_record_batches)]
    before = accumulate(lengths[:-1], initial=0)
    return [
        BatchNumber(index, start, 0, rows)
        for index, (start, rows) in enumerate(zip(before, lengths, strict=False))
    ]


def reader_of_batches(path: Path, name: str) -> Callable[[BatchNumber], list[RawRow]]:
    """Reads a batch of `batch_numbers`."""
    # Read and not mapped: every row is needed once, and mapped pages would stay in memory.
    reader = pa.ipc.open_file(pa.OSFile(str(path)))
    unit = (reader.schema.metadata or {}).get(b"unit", b"line").decode()

    def read(number: BatchNumber) -> list[RawRow]:
        batch = reader.get_batch(number.index).slice(number.first, number.rows)
        texts, lines, files = (batch.column(column).to_pylist() for column in ("row", "line", "file"))
        columns = zip(values_of(texts), texts, lines, files, strict=True)
        return [
            RawRow(
                without_nulls(value) if NULL in text else value,
                text,
                number.before + position,
                RowPlace(file or name, unit, line),
            )
            for position, (value, text, line, file) in enumerate(columns, 1)
        ]

    return read
