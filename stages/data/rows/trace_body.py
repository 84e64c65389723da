"""Where rows come from, of artifacts that say it in a column."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from tunemill.stages.artifacts import Artifact, Preferences, RawDataset, TokenizedDataset
from tunemill.stages.data.rows.columns import column
from tunemill.stages.errors import RowOf, RowPlace


def trace_to_dataset(
    _config: Any,
    made: TokenizedDataset | Preferences,
    rows: Sequence[int],
    **_inputs: Artifact,
) -> list[RowOf]:
    """Of prepared rows the row of the dataset that each was made of."""
    (numbers,) = _read(made.rows, rows, "source_row")[1]
    return [RowOf("dataset", 0, number - 1) for number in numbers]


def trace_to_source(config: Any, made: RawDataset, rows: Sequence[int]) -> list[RowPlace]:
    """Of rows of a dataset the file, and the line or row in it; a dataset that is one file is called as its path is."""
    metadata, (numbers, files) = _read(made.rows, rows, "line", "file")
    unit, name = metadata.get(b"unit", b"line").decode(), Path(str(config.path)).name
    return [RowPlace(file or name, unit, number) for number, file in zip(numbers, files, strict=True)]


def _read(path: Path, rows: Sequence[int], *columns: str) -> tuple[dict[bytes, bytes], list[list[Any]]]:
    """The file's metadata, and of some rows these columns."""
    with pa.ipc.open_file(pa.memory_map(str(path))) as reader:
        table = reader.read_all().select(list(columns)).take(column(rows, pa.int64()))
        return reader.schema.metadata or {}, [table[column].to_pylist() for column in columns]
