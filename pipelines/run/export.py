"""Prepared training rows as one Parquet file, in the columns that Axolotl's prepared datasets have."""

import uuid
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from tunemill.resources.errors import StoreError
from tunemill.resources.store import Published

if TYPE_CHECKING:
    import pyarrow as pa


def export_rows(training_data: Published, export: str, target: Path) -> int:
    """Write the rows of training data in training order; returns how many there are.

    `export` is the `module:function` that puts a batch of them into Axolotl's columns, as their stage declares it.

    Rows that `val_set_size` holds out come last, as in Axolotl's prepared datasets. Raises StoreError when the file
    cannot be written.
    """
    import pyarrow.parquet as pq

    beside = target.with_name(f".{uuid.uuid4().hex}")
    rows = 0
    try:
        tables = _tables(training_data, export)
        first = next(tables)
        with pq.ParquetWriter(beside, first.schema, compression="zstd") as writer:
            for table in chain((first,), tables):
                writer.write_table(table)
                rows += table.num_rows
        beside.replace(target)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise StoreError(
            f"{target}: the export cannot be written there: {error.strerror or error}"
        ) from error
    return rows


def _tables(training_data: Published, export: str) -> "Iterator[pa.Table]":
    import pyarrow as pa

    module, _, function = export.partition(":")
    convert: Callable[[pa.RecordBatch], pa.Table] = getattr(import_module(module), function)
    for path in (training_data.data / "rows.arrow", training_data.data / "held_out.arrow"):
        if path.exists():
            with pa.ipc.open_file(pa.OSFile(str(path))) as reader:
                yield from (convert(reader.get_batch(index)) for index in range(reader.num_record_batches))
