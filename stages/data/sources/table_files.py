"""Rows of text, Parquet and Arrow files, one at a time."""

import codecs
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tunemill.stages.data.sources.arrow_values import BATCH_ROWS, check_columns, checked, rows_of
from tunemill.stages.data.sources.rows import Row
from tunemill.stages.data.sources.unpacking import unpacked, unpacked_text

ARROW_FILE = b"ARROW1\x00\x00"


def text_lines(path: Path, skip: int) -> Iterator[Row]:
    """Every line as the field `text`, without its end; empty lines too, as in the datasets library.

    A byte order mark before a line, as files that were put behind each other have, is no part of it. Raises
    UnreadableError for text in UTF-16 or UTF-32.
    """
    with unpacked_text(path) as file:
        for line, block in islice(enumerate(file, 1), skip, None):
            plain = block.removesuffix(b"\n").removesuffix(b"\r").removeprefix(codecs.BOM_UTF8)
            nul = plain.find(b"\0")
            if nul >= 0:
                problem = f"not a text: it holds a NUL byte, number {nul + 1} of the line"
                yield Row(line, problem=problem, text=plain.decode("utf-8", errors="replace"))
                continue
            try:
                yield Row(line, {"text": plain.decode("utf-8")})
            except UnicodeDecodeError as error:
                problem = f"not UTF-8: byte {error.start + 1} of the line"
                yield Row(line, problem=problem, text=plain.decode("utf-8", errors="replace"))


def count_text(path: Path) -> int:
    """How many lines there are."""
    with unpacked(path) as file:
        return sum(1 for _ in file)


def parquet_rows(path: Path, skip: int) -> Iterator[Row]:
    """The rows of a Parquet file after the first `skip`; row groups before them are not read."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        groups, before = 0, 0
        while groups < file.num_row_groups:
            size = file.metadata.row_group(groups).num_rows
            if before + size > skip:
                break
            before += size
            groups += 1
        check_columns(file.schema_arrow)
        rest = range(groups, file.num_row_groups)
        for batch in file.iter_batches(BATCH_ROWS, row_groups=list(rest)):
            yield from rows_of(batch, before, skip)
            before += batch.num_rows


def count_parquet(path: Path) -> int:
    """How many rows a Parquet file says it has."""
    with pq.ParquetFile(path) as file:
        return int(file.metadata.num_rows)


def arrow_rows(path: Path, skip: int) -> Iterator[Row]:
    """The rows of an Arrow IPC file or stream after the first `skip`."""
    before = 0
    for batch in _arrow_batches(path):
        yield from rows_of(batch, before, skip)
        before += batch.num_rows


def count_arrow(path: Path) -> int:
    """How many rows an Arrow IPC file or stream has."""
    return sum(batch.num_rows for batch in _arrow_batches(path))


def _arrow_batches(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        indexed = file.read(len(ARROW_FILE)) == ARROW_FILE
    # Mapped memory would stay resident as far as it has been read.
    with pa.OSFile(str(path), "rb") as source:
        if indexed:
            with pa.ipc.open_file(source) as reader:
                check_columns(reader.schema)
                for index in range(reader.num_record_batches):
                    yield checked(reader.get_batch(index))
        else:
            with pa.ipc.open_stream(source) as stream:
                check_columns(stream.schema)
                yield from map(checked, stream)
