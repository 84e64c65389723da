"""Reading the rows of a RawDataset, a batch at a time."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from tunemill.stages.data.conversations.example import RowValue
from tunemill.stages.data.rows.nulls import without_nulls
from tunemill.stages.errors import RowPlace


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
    # Read and not mapped: every row is needed once, and mapped pages would stay in memory.
    reader = pa.ipc.open_file(pa.OSFile(str(path)))
    unit = (reader.schema.metadata or {}).get(b"unit", b"line").decode()
    number = 0
    for index in range(reader.num_record_batches):
        batch = reader.get_batch(index)
        columns = (batch.column(column).to_pylist() for column in ("row", "line", "file"))
        yield [
            RawRow(
                without_nulls(json.loads(text)), text, number + position, RowPlace(file or name, unit, line)
            )
            for position, (text, line, file) in enumerate(zip(*columns, strict=True), 1)
        ]
        number += batch.num_rows
