"""Reading rows out of files, one at a time: memory does not grow with the file."""

import csv
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from tunemill.stages.errors import SourceError

READ_SIZE = 1 << 20
# A JSON error this close to the end of what has been read may only mean that the value goes on.
UNFINISHED_MARGIN = 16
WHITE_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True)
class Row:
    """One row: its line in a file of JSON lines, else its number; both from 1. `value` or `problem` is set."""

    line: int
    value: Any = None
    problem: str | None = None


def read_rows(path: Path, ds_type: str) -> tuple[str, Iterator[Row]]:
    """What the rows' numbers count ("line" or "row"), and the rows.

    Raises SourceError when the file as a whole cannot be read as `ds_type`.
    """
    if ds_type == "json":
        return ("row", json_array(path)) if starts_with_bracket(path) else ("line", json_lines(path))
    return "row", READERS[ds_type](path)


def starts_with_bracket(path: Path) -> bool:
    """Whether the first character that is not white space is `[`: a JSON array, not JSON lines."""
    with path.open("rb") as file:
        while block := file.read(READ_SIZE):
            text = block.removeprefix(b"\xef\xbb\xbf").lstrip()
            if text:
                return text.startswith(b"[")
    return False


def parse_json(text: str) -> Any:
    """Raises ValueError for what is not JSON; NaN and Infinity are not."""
    return json.loads(text, parse_constant=refuse_constant)


def refuse_constant(name: str) -> Any:
    """Called by the JSON parser for NaN and Infinity. Raises ValueError."""
    raise ValueError(f"{name} is not a JSON value")


def json_lines(path: Path) -> Iterator[Row]:
    """Blank lines are not rows, but count as lines."""
    with path.open("rb") as file:
        for line, block in enumerate(file, 1):
            text = block.removeprefix(b"\xef\xbb\xbf") if line == 1 else block
            if not text.strip():
                continue
            try:
                yield Row(line, parse_json(text.decode("utf-8").strip()))
            except UnicodeDecodeError as error:
                yield Row(line, problem=f"not UTF-8: byte {error.start + 1} of the line")
            except JSONDecodeError as error:
                yield Row(line, problem=f"invalid JSON: {error.msg} (column {error.colno})")
            except (ValueError, RecursionError) as error:
                yield Row(line, problem=f"invalid JSON: {error}")


def json_array(path: Path) -> Iterator[Row]:
    """The elements of one JSON array. A syntax error ends it: what follows cannot be told apart."""
    decoder = json.JSONDecoder(parse_constant=refuse_constant)
    number = 0
    with path.open("r", encoding="utf-8-sig") as file:
        text, position = _skip("", 0, file)
        text, position = _skip(text, position + 1, file)
        while text[position : position + 1] != "]":
            number += 1
            try:
                value, text, position = _element(decoder, text, position, file)
                text, position = _skip(text, position, file)
                if text[position : position + 1] not in (",", "]"):
                    raise ValueError("expected a comma or the closing bracket after it")
            except UnicodeDecodeError:
                yield Row(number, problem="not UTF-8")
                return
            except JSONDecodeError as error:
                yield Row(number, problem=f"invalid JSON: {error.msg}")
                return
            except (ValueError, RecursionError) as error:
                yield Row(number, problem=f"invalid JSON: {error}")
                return
            yield Row(number, value)
            if text[position] == ",":
                text, position = _skip(text, position + 1, file)
        text, position = _skip(text, position + 1, file)
        if position < len(text):
            raise SourceError(f"{path}: there is more after the closing bracket of the JSON array")


def _skip(text: str, position: int, file: TextIO) -> tuple[str, int]:
    """The text at hand and the position after white space, reading on where the text ends."""
    while True:
        match = WHITE_SPACE.match(text, position)
        assert match is not None, "the pattern matches nothing too"
        if match.end() < len(text):
            return text, match.end()
        text, position = file.read(READ_SIZE), 0
        if not text:
            return "", 0


def _element(decoder: json.JSONDecoder, text: str, position: int, file: TextIO) -> tuple[Any, str, int]:
    """The next value, the text at hand and the position after the value."""
    size = READ_SIZE
    while True:
        try:
            value, end = decoder.raw_decode(text, position)
        except JSONDecodeError as error:
            unfinished = error.msg.startswith("Unterminated") or error.pos > len(text) - UNFINISHED_MARGIN
            more = file.read(size) if unfinished else ""
            if not more:
                raise
        else:
            more = file.read(size) if end == len(text) else ""
            if not more:
                return value, text, end
        text, position = text[position:] + more, 0
        size *= 2


def csv_rows(path: Path) -> Iterator[Row]:
    """Rows of a CSV file with a header; every value is a string."""
    csv.field_size_limit(sys.maxsize)
    with path.open("r", encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            columns = next(reader, [])
            repeated = {name for name in columns if columns.count(name) > 1}
            if repeated:
                raise SourceError(f"{path}: the header names {sorted(repeated)} more than once")
            for number, values in enumerate((values for values in reader if values), 1):
                if len(values) == len(columns):
                    yield Row(number, dict(zip(columns, values, strict=True)))
                else:
                    yield Row(number, problem=f"{len(values)} values, the header has {len(columns)} columns")
        except csv.Error as error:
            raise SourceError(f"{path}, line {reader.line_num}: not CSV: {error}") from None
        except UnicodeDecodeError as error:
            raise SourceError(f"{path}: not UTF-8 after line {reader.line_num} ({error.reason})") from None


def parquet_rows(path: Path) -> Iterator[Row]:
    """The rows of a Parquet file, numbered from 1. Raises SourceError where it is none, or damaged."""
    try:
        file = pq.ParquetFile(path, memory_map=True)
        number = 0
        for batch in file.iter_batches(batch_size=1024):
            for value in batch.to_pylist():
                number += 1
                yield Row(number, value)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path}: not a Parquet file, or a damaged one: {error}") from None


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {"csv": csv_rows, "parquet": parquet_rows}
