"""One file as rows, whatever it holds and however it is packed."""

from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from tunemill.stages.data.sources.csv_files import csv_rows
from tunemill.stages.data.sources.json_blocks import json_line_blocks
from tunemill.stages.data.sources.json_layout import Layout, layout_of
from tunemill.stages.data.sources.json_lines import count_lines, json_lines
from tunemill.stages.data.sources.json_stream import json_array, json_objects
from tunemill.stages.data.sources.rows import Row, RowFile
from tunemill.stages.data.sources.table_files import (
    arrow_rows,
    count_arrow,
    count_parquet,
    count_text,
    parquet_rows,
    text_lines,
)
from tunemill.stages.data.sources.unpacking import DAMAGES, UnreadableError, unpacked_copy
from tunemill.stages.errors import SourceError

T = TypeVar("T")
Read = Callable[[int], Iterator[Row]]
Count = Callable[[], int]
LINES = ("csv", "tsv", "text")
TITLES = {"json": "JSON", "csv": "CSV", "tsv": "TSV", "parquet": "Parquet", "arrow": "Arrow", "text": "text"}


def row_file(path: Path, ds_type: str, name: str, shown: str, place: str, scratch: Path) -> RowFile:
    """The file as rows of `ds_type`; `place` is what errors call it, `scratch` is for unpacked copies.

    Raises SourceError, here or while the rows are read, when it is damaged or is no such file.
    """
    layout = _checked(place, ds_type, partial(layout_of, path)) if ds_type == "json" else None
    unit = "line" if ds_type in LINES or layout == "lines" else "row"
    read, count = _reader(path, ds_type, layout, scratch)

    def guarded(read: Callable[[int], Iterator[T]], skip: int) -> Iterator[T]:
        try:
            yield from read(skip)
        except DAMAGES as error:
            raise damaged(place, ds_type, error) from None

    blocks = partial(guarded, partial(json_line_blocks, path)) if layout == "lines" else None
    counted = cache(partial(_checked, place, ds_type, count))
    return RowFile(name, shown, unit, partial(guarded, read), counted, blocks)


def damaged(place: str, ds_type: str, error: Exception) -> SourceError:
    """The error for a file that cannot be read as what it should be."""
    reason = str(error) or type(error).__name__
    if isinstance(error, UnreadableError):
        return SourceError(f"{place}: {reason}")
    return SourceError(f"{place}: not a file of {TITLES[ds_type]} rows, or a damaged one: {reason}")


def _reader(path: Path, ds_type: str, layout: Layout | None, scratch: Path) -> tuple[Read, Count]:
    if ds_type == "text":
        return partial(text_lines, path), partial(count_text, path)
    if layout == "lines":
        return partial(json_lines, path), partial(count_lines, path)
    if layout is not None:
        return _reread(partial(json_array if layout == "array" else json_objects, path))
    if ds_type in ("csv", "tsv"):
        return _reread(partial(csv_rows, path, "," if ds_type == "csv" else "\t"))
    plain = cache(partial(unpacked_copy, path, scratch))
    read, count = (parquet_rows, count_parquet) if ds_type == "parquet" else (arrow_rows, count_arrow)
    return lambda skip: read(plain(), skip), lambda: count(plain())


def _reread(rows: Callable[[], Iterator[Row]]) -> tuple[Read, Count]:
    """For files of which the rows can only be told by reading all of them."""
    return lambda skip: islice(rows(), skip, None), lambda: sum(1 for _ in rows())


def _checked(place: str, ds_type: str, look: Callable[[], T]) -> T:
    try:
        return look()
    except DAMAGES as error:
        raise damaged(place, ds_type, error) from None
