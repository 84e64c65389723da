"""Rows of CSV and TSV files. What is no CSV is one bad row with its line, and the rows behind it are read."""

import csv
import io
import json
import re
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from tunemill.stages.data.sources.rows import Row
from tunemill.stages.data.sources.unpacking import UnreadableError, unpacked_text
from tunemill.stages.text_files import MARK

# Of one row. What runs on for longer is a quote that nobody closed.
MOST_LINES = 1_000_000
CONTENT = re.compile(r'(?:[^"]|"")*+')
AFTER_QUOTE = 'text behind a closing quote; inside of quotes a quote is written twice: ""'
NEVER_CLOSED = "a quote is opened in this line and never closed"


def csv_rows(path: Path, delimiter: str) -> Iterator[Row]:
    """Rows of a CSV file with a header, each with the line in which it begins; every value is a string.

    Raises UnreadableError where the header cannot be read, or names a column twice.
    """
    csv.field_size_limit(sys.maxsize)
    with (
        unpacked_text(path) as binary,
        # What is not UTF-8 becomes halves of surrogate pairs, which are looked for in each row.
        io.TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape", newline="") as file,
    ):
        lines = Lines(file)
        columns = _header(lines, delimiter)
        width = len(columns)
        reader = csv.reader(iter(lines), strict=True, delimiter=delimiter)
        while True:
            row = lines.begin_row()
            first = lines.number + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                problem = _end_bad_row(lines, delimiter, width) or str(error)
                yield Row(first, problem=f"not {_title(delimiter)}: {problem}", text=_readable(lines.row))
                # The lines may have come to their end, and some of them are given again.
                reader = csv.reader(iter(lines), strict=True, delimiter=delimiter)
                continue
            if not values:
                continue
            text = row[0] if len(row) == 1 else "".join(row)
            if not (text.isascii() and "\0" not in text) and (problem := _damage(row, first)):
                yield Row(first, problem=problem, text=_readable(row))
            elif len(values) == width:
                yield Row(first, dict(zip(columns, values, strict=False)))
            else:
                problem = f"{len(values)} values, the header has {width} columns"
                yield Row(first, problem=problem, text=json.dumps(values, ensure_ascii=False))


class Lines:
    """The lines of a file, those of the row at hand remembered. `number` is that of the last one given.

    A byte order mark before a row, as files that were put behind each other have, is dropped.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._again: deque[str] = deque()
        self.number = 0
        self.row: list[str] = []

    def __iter__(self) -> Iterator[str]:
        """The lines from here on, each put into the row at hand."""
        again, file = self._again, self._file
        while (line := again.popleft() if again else next(file, None)) is not None:
            self.number += 1
            row = self.row
            if not row and line[0] == MARK:
                line = line[1:]
            row.append(line)
            if len(row) > MOST_LINES:
                raise csv.Error(NEVER_CLOSED)
            yield line

    def begin_row(self) -> list[str]:
        """What is given from now on belongs to another row: its lines, as they come."""
        self.row = []
        return self.row

    def keep(self, count: int) -> None:
        """Only the first `count` lines are of the row at hand: the others will be given again."""
        self.number -= len(self.row) - count
        self._again.extendleft(reversed(self.row[count:]))
        self.row = self.row[:count]


def _header(lines: Lines, delimiter: str) -> list[str]:
    """The names of the columns; none for an empty file."""
    title = _title(delimiter)
    columns: list[str] = []
    try:
        columns = next(
            (values for values in csv.reader(iter(lines), strict=True, delimiter=delimiter) if values), []
        )
    except csv.Error:
        problem = _end_bad_row(lines, delimiter, 0)
        raise UnreadableError(f"line 1, the header, is not {title}: {problem}") from None
    if problem := _damage(lines.row, 1):
        raise UnreadableError(f"the header is {problem}; save the file as {title} in UTF-8")
    repeated = {name for name in columns if columns.count(name) > 1}
    if repeated:
        raise UnreadableError(f"the header names {sorted(repeated)} more than once")
    return columns


def _end_bad_row(lines: Lines, delimiter: str, width: int) -> str:
    """Find the last line of a row that is no CSV, so that the next one begins behind it. Returns what is wrong.

    A quote that nobody closed takes in the rows behind it, up to the next quote. They are rows if that quote opens a
    value, or if each of them has as many values as there are columns (`width`).
    """
    problem, opened, index, is_quoted = "", 0, 0, False
    while True:
        if index == len(lines.row) and not _has_more(lines):
            lines.keep(opened + 1)
            return NEVER_CLOSED
        line, position = lines.row[index], 0
        while position < len(line):
            if not is_quoted:
                if line[position] == '"':
                    is_quoted, opened, position = True, index, position + 1
                else:
                    position = _next_value(line, position, delimiter)
                continue
            match = CONTENT.match(line, position)
            assert match is not None, "the pattern matches nothing too"
            position = match.end()
            if position == len(line):
                break
            is_quoted = False
            if line[position + 1 : position + 2] not in (delimiter, "\r", "\n", ""):
                opens = position == 0 or line[position - 1] == delimiter
                if index > opened and (
                    opens or _are_rows(lines.row[opened + 1 : index + 1], delimiter, width)
                ):
                    lines.keep(opened + 1)
                    return problem or NEVER_CLOSED
                problem = problem or AFTER_QUOTE
            position = _next_value(line, position, delimiter)
        index += 1
        if not is_quoted:
            lines.keep(index)
            return problem


def _has_more(lines: Lines) -> bool:
    """Take one more line into the row, if there is one."""
    return len(lines.row) < MOST_LINES and next(iter(lines), None) is not None


def _next_value(line: str, position: int, delimiter: str) -> int:
    """Where the next value begins; the end of the line where this is the last one."""
    return line.find(delimiter, position) + 1 or len(line)


def _are_rows(lines: list[str], delimiter: str, width: int) -> bool:
    """Whether each line is a row by itself. With one column any line is, so none is taken for one.

    A line with one quote more than pairs of them ends a value that began before it.
    """
    if width < 2 or any(line.count('"') % 2 for line in lines):
        return False
    try:
        rows = [next(csv.reader([line], strict=True, delimiter=delimiter)) for line in lines]
    except csv.Error:
        return False
    return all(len(values) == width for values in rows)


def _damage(row: list[str], first: int) -> str:
    """What is wrong with the characters of a row whose first line is number `first`; empty where nothing is."""
    for number, line in enumerate(row, first):
        place = "the line" if number == first else f"line {number}"
        try:
            line.encode("utf-8")
        except UnicodeEncodeError as error:
            return f"not UTF-8: byte {len(_bytes(line[: error.start])) + 1} of {place}"
        before, nul, _ = line.partition("\0")
        if nul:
            return f"not a text: it holds a NUL byte, number {len(_bytes(before)) + 1} of {place}"
    return ""


def _bytes(text: str) -> bytes:
    """The text as it stands in the file."""
    return text.encode("utf-8", errors="surrogateescape")


def _readable(row: list[str]) -> str:
    return _bytes("".join(row)).decode("utf-8", errors="replace").rstrip("\r\n")


def _title(delimiter: str) -> str:
    return "TSV" if delimiter == "\t" else "CSV"
