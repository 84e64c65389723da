"""Reading the rows of a RawDataset, a batch at a time."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from tunemill.stages.data.conversations.example import RowValue
from tunemill.stages.errors import RowPlace


@dataclass(frozen=True)
class RawRow:
    """A row without its null fields, as text too, and its number in the dataset, from 1."""

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


def without_nulls(value: Any) -> Any:
    """A field that is null is a field that is not there, at every depth."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value
