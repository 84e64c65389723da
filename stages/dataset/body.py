"""The body of the dataset stage: read, validate, write JSON text."""

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from tunemill.stages.dataset.config import DatasetConfig
from tunemill.stages.dataset.sources import Row, read_rows
from tunemill.stages.dataset.split import Split, parse_split
from tunemill.stages.errors import RowError, RowPlace, SourceError, row_error
from tunemill.stages.report import Report, Workspace

SCHEMA = pa.schema([("row", pa.string()), ("line", pa.int64()), ("file", pa.string())])
LISTED_PROBLEMS = 10
BATCH_ROWS = 1024
BATCH_CHARACTERS = 1 << 24


def dataset(config: DatasetConfig, out: Workspace, report: Report) -> None:
    """Write `rows.arrow`: each row as JSON text, with its line in the source.

    Raises SourceError for a file that cannot be read, RowError for bad rows, naming the first ten.
    """
    path = Path(config.path)
    check_file(path)
    ds_type = known_type(config, path)
    unit, rows = read_rows(path, ds_type)
    split = parse_split(config.split)
    start, stop = 0, None
    if not split.takes_all:
        start, stop = count_and_bound(rows, split)
        unit, rows = read_rows(path, ds_type)
    written = write_rows(rows, start, stop, out.data / "rows.arrow", path.name, unit, report)
    if written == 0:
        given = "has no rows" if split.takes_all else f"has no rows in split: {split.text}"
        raise RowError(f"{path.name} {given}")
    report.summary(rows=written)


def check_file(path: Path) -> None:
    """Raises SourceError unless `path` is a file; suggests the nearest name beside it."""
    if path.is_file():
        return
    if path.is_dir():
        raise SourceError(f"path: {path} is a folder; name one file in it")
    folder = next(parent for parent in path.parents if parent.is_dir())
    names = [item.name for item in folder.iterdir()]
    wanted = path.relative_to(folder).parts[0]
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.5)
    hint = f"; did you mean {folder / near[0]}?" if near else f"; {folder} holds no such name"
    raise SourceError(f"path: {path} does not exist{hint}")


def known_type(config: DatasetConfig, path: Path) -> str:
    """What the file holds. Raises SourceError where neither a setting nor its extension says so."""
    if config.ds_type is None:
        raise SourceError(
            f"path: {path.name} has the extension {path.suffix!r}, which says nothing about its rows; "
            "set ds_type: json, csv or parquet"
        )
    return config.ds_type


def count_and_bound(rows: Iterator[Row], split: Split) -> tuple[int, int]:
    """First and last row (exclusive) of a split, after counting the rows."""
    return split.bounds(sum(1 for _ in rows))


def write_rows(
    rows: Iterator[Row], start: int, stop: int | None, target: Path, file: str, unit: str, report: Report
) -> int:
    """Write rows `start` to `stop` as Arrow batches, validating all of them. Returns how many."""
    problems: list[tuple[int, str]] = []
    bad = written = 0
    texts: list[str] = []
    lines: list[int] = []
    characters = 0

    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, SCHEMA.with_metadata({"unit": unit})) as writer:

        def flush() -> None:
            if texts:
                writer.write_batch(pa.record_batch([texts, lines, [""] * len(texts)], schema=SCHEMA))
                texts.clear()
                lines.clear()

        for number, row in enumerate(rows):
            text, problem = row_text(row)
            if problem is not None:
                bad += 1
                if len(problems) < LISTED_PROBLEMS:
                    problems.append((row.line, problem))
            if bad or number < start or (stop is not None and number >= stop):
                continue
            texts.append(text)
            lines.append(row.line)
            characters += len(text)
            written += 1
            if len(texts) >= BATCH_ROWS or characters >= BATCH_CHARACTERS:
                flush()
                characters = 0
                report.progress(written, None, "rows")
        flush()
    if bad:
        raise row_error(file, [(RowPlace(file, unit, line), reason) for line, reason in problems], bad)
    return written


def row_text(row: Row) -> tuple[str, str | None]:
    """The row as compact JSON text, or why it cannot be one."""
    if row.problem is not None:
        return "", row.problem
    if not isinstance(row.value, dict):
        return "", f"not an object but {kind(row.value)}; a row is an object of named fields"
    try:
        text = json.dumps(row.value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "", "a string holds half a surrogate pair, which is not a character"
    except (TypeError, ValueError) as error:
        return "", f"cannot be written as JSON: {error}"
    return text, None


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
