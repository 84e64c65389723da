"""The first rows of a local file, read by the readers of the stages, and no more of it than that takes."""

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tunemill.resources.local import refusal, shown
from tunemill.stages.data.rows.nulls import without_nulls
from tunemill.stages.data.sources.files import damaged, row_file
from tunemill.stages.data.sources.json_text import json_text
from tunemill.stages.data.sources.names import EXTENSIONS, URL, type_of
from tunemill.stages.data.sources.rows import Row, RowFile
from tunemill.stages.data.sources.source import missing
from tunemill.stages.data.sources.unpacking import DAMAGES, unpacked
from tunemill.stages.errors import SourceError

LOOKED_ROWS = 1000
LOOKED_CHARACTERS = 1 << 24
# A file of more bytes is not read to its end only to count its rows.
COUNTED_BYTES = 1 << 26
# Where a text file shows that it is none, and the longest first line of JSON.
LOOKED_BYTES = 1 << 24
COUNTED_WITHOUT_READING = ("parquet", "arrow")
JSON_ROWS = "A row is an object of named fields: one JSON object a line, or one JSON array of objects"


@dataclass(frozen=True)
class FirstRows:
    """What was seen of a file: the `values` of rows that can be read, and where and why others cannot.

    `count` is how many rows the whole file has, None where that was not counted.
    """

    path: Path
    values: tuple[dict[str, Any], ...]
    problems: tuple[tuple[str, str], ...]
    count: int | None

    @property
    def looked(self) -> int:
        """How many rows were looked at."""
        return len(self.values) + len(self.problems)


def first_rows(name: str) -> FirstRows:
    """Look at a file's first rows. Raises SourceError for what is no file of rows, or has a first row that is none."""
    path = _row_path(name)
    kind = type_of(path.name)
    if kind is None:
        raise SourceError(
            f"{name}: its ending says nothing about its rows; known are {', '.join(EXTENSIONS)}. Rename the file, or "
            "write the YAML by hand with ds_type: beside path:"
        )
    if kind not in COUNTED_WITHOUT_READING:
        _check_text(path, name, kind)
    with TemporaryDirectory(prefix="tunemill-init-") as scratch:
        file = row_file(path, kind, "", path.name, name, Path(scratch))
        return _looked(path, name, file, kind)


def _row_path(name: str) -> Path:
    """The path of a file with something in it."""
    if URL.match(name):
        raise SourceError(
            f"{name} is a URL, and init looks at local files only; write the YAML by hand, with path: {name} under "
            "datasets:"
        )
    path = Path(os.path.expanduser(name))  # noqa: PTH111  a user that there is not is a name
    if reason := refusal(path):
        raise SourceError(f"{shown(name)}: {reason}")
    try:
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        reason = str(missing(path.absolute())).removeprefix("path: ")
        raise SourceError(
            f"{reason}. Datasets of the Hub and URLs are written into a YAML by hand, under path:"
        ) from None
    except OSError as error:
        raise SourceError(f"{name}: {error.strerror}") from None
    if stat.S_ISDIR(state.st_mode):
        raise SourceError(
            f"{name} is a folder; name files in it, or write the YAML by hand, with path: {name}"
        )
    if state.st_size == 0:
        raise SourceError(f"{name} is empty; give a file with rows")
    return path


def _check_text(path: Path, name: str, kind: str) -> None:
    """Refuses what would only be read to its end in search of the end of its first line."""
    try:
        with unpacked(path) as file:
            head = file.read(LOOKED_BYTES)
    except DAMAGES as error:
        raise damaged(name, kind, error) from None
    if b"\0" in head:
        raise SourceError(
            f"{name} holds bytes of value 0, so it is binary, or text that is not UTF-8; give rows as UTF-8"
        )
    if (
        kind == "json"
        and len(head) == LOOKED_BYTES
        and b"\n" not in head
        and not head.lstrip().startswith(b"[")
    ):
        raise SourceError(
            f"{name}: its first line is longer than {LOOKED_BYTES >> 20} MiB; rows are one JSON object a line, or one "
            "JSON array of objects"
        )


def _looked(path: Path, name: str, file: RowFile, kind: str) -> FirstRows:
    values: list[dict[str, Any]] = []
    problems: list[tuple[str, str]] = []
    rows = file.read(0)
    for row in _some(rows):
        place = f"{name}:{row.number}" if file.unit == "line" else f"{name}, {file.unit} {row.number}"
        try:
            if row.problem is not None:
                raise ValueError(row.problem)
            values.append(without_nulls(json.loads(json_text(row.value))))
        except ValueError as error:
            problems.append((place, str(error)))
            if not values:
                rule = JSON_ROWS if kind == "json" else "The first row must be one that can be read"
                raise SourceError(f"{place}: {error}. {rule}") from None
    looked = len(values) + len(problems)
    if looked == 0:
        raise SourceError(f"{name} has no rows; give a file with rows")
    if next(rows, None) is None:
        return FirstRows(path, tuple(values), tuple(problems), looked)
    counts = kind in COUNTED_WITHOUT_READING or path.stat().st_size <= COUNTED_BYTES
    return FirstRows(path, tuple(values), tuple(problems), file.count() if counts else None)


def _some(rows: Iterator[Row]) -> Iterator[Row]:
    """The first rows, as far as they are not too long together."""
    characters = 0
    for number, row in enumerate(rows, 1):
        yield row
        characters += len(str(row.value))
        if number == LOOKED_ROWS or characters > LOOKED_CHARACTERS:
            return
