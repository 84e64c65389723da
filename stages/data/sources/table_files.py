"""Rows of CSV, text, Parquet and Arrow files, one at a time."""

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tunemill.stages.data.sources.rows import Row
from tunemill.stages.data.sources.unpacking import UnreadableError, unpacked

BATCH_ROWS = 1024
ARROW_FILE = b"ARROW1\x00\x00"


def text_lines(path: Path, skip: int) -> Iterator[Row]:
    """Every line as the field `text`, without its end; empty lines too, as in the datasets library."""
    with unpacked(path) as file:
        for line, block in islice(enumerate(file, 1), skip, None):
            plain = block.removesuffix(b"\n").removesuffix(b"\r")
            try:
                yield Row(line, {"text": plain.decode("utf-8-sig" if line == 1 else "utf-8")})
            except UnicodeDecodeError as error:
                problem = f"not UTF-8: byte {error.start + 1} of the line"
                yield Row(line, problem=problem, text=plain.decode("utf-8", errors="replace"))


def count_text(path: Path) -> int:
    """How many lines there are."""
    with unpacked(path) as file:
        return sum(1 for _ in file)


def csv_rows(path: Path, delimiter: str) -> Iterator[Row]:
    """Rows of a CSV file with a header; every value is a string."""
    csv.field_size_limit(sys.maxsize)
    with unpacked(path) as binary, io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True, delimiter=delimiter)
        try:
            columns = next(reader, [])
            repeated = {name for name in columns if columns.count(name) > 1}
            if repeated:
                raise UnreadableError(f"the header names {sorted(repeated)} more than once")
            for number, values in enumerate((values for values in reader if values), 1):
                if len(values) == len(columns):
                    yield Row(number, dict(zip(columns, values, strict=True)))
                else:
                    problem = f"{len(values)} values, the header has {len(columns)} columns"
                    yield Row(number, problem=problem, text=json.dumps(values, ensure_ascii=False))
        except csv.Error as error:
            raise UnreadableError(f"line {reader.line_num} is not CSV: {error}") from None
        except UnicodeDecodeError as error:
            raise UnreadableError(f"not UTF-8 after line {reader.line_num} ({error.reason})") from None


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
        rest = range(groups, file.num_row_groups)
        yield from _rows(file.iter_batches(BATCH_ROWS, row_groups=list(rest)), before, skip)


def count_parquet(path: Path) -> int:
    """How many rows a Parquet file says it has."""
    with pq.ParquetFile(path) as file:
        return int(file.metadata.num_rows)


def arrow_rows(path: Path, skip: int) -> Iterator[Row]:
    """The rows of an Arrow IPC file or stream after the first `skip`."""
    yield from _rows(_arrow_batches(path), 0, skip)


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
                for index in range(reader.num_record_batches):
                    yield _checked(reader.get_batch(index))
        else:
            with pa.ipc.open_stream(source) as stream:
                yield from map(_checked, stream)


def _checked(batch: Any) -> Any:
    """Offsets that lead nowhere would end the process."""
    batch.validate(full=True)
    return batch


def _rows(batches: Iterable[Any], before: int, skip: int) -> Iterator[Row]:
    """Rows of Arrow batches, of which `before` rows have been left out; those up to `skip` are dropped."""
    for batch in batches:
        texts = [
            name for name, kind in zip(batch.schema.names, batch.schema.types, strict=True) if _is_json(kind)
        ]
        for start in range(0, batch.num_rows, BATCH_ROWS):
            piece = batch.slice(start, BATCH_ROWS)
            if before + piece.num_rows <= skip:
                before += piece.num_rows
                continue
            for value in piece.to_pylist(maps_as_pydicts="strict"):
                before += 1
                if before > skip:
                    for name in texts:
                        value[name] = None if value[name] is None else json.loads(value[name])
                    yield Row(before, value)


def _is_json(kind: Any) -> bool:
    return isinstance(kind, pa.JsonType)
