"""The body of the dataset stage: read, validate, write JSON text."""

import shutil
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from tunemill.stages.data.dataset.config import DatasetConfig
from tunemill.stages.data.dataset.shards import Numbers, rows_of_shard, write_in_order
from tunemill.stages.data.rows.bad_rows import BadRows
from tunemill.stages.data.rows.columns import column
from tunemill.stages.data.sources.json_text import json_text, loose_text
from tunemill.stages.data.sources.rows import Row, RowSource
from tunemill.stages.data.sources.selection import check_splits, default_parts, rows_of
from tunemill.stages.data.sources.source import open_source
from tunemill.stages.data.sources.split import Range, choose_ranges, count_rows
from tunemill.stages.errors import RowError, RowPlace
from tunemill.stages.report import Report, Workspace

COLUMNS = [("row", pa.string()), ("line", pa.int64()), ("file", pa.string())]
BATCH_ROWS = 1024
BATCH_CHARACTERS = 1 << 24
LISTED_FILES = 50


def dataset(config: DatasetConfig, out: Workspace, report: Report) -> None:
    """Write `rows.arrow`: each row as JSON text, with its place in the source.

    Raises SourceError for a source that cannot be read, SettingError for a split that it does not have, RowError
    for bad rows (with the first ten reasons) or where there are none at all.
    """
    scratch = out.checkpoints / "source"
    shutil.rmtree(scratch, ignore_errors=True)
    source = open_source(config, scratch, report)
    parts = config.parts or default_parts(source, held_out=config.held_out)
    check_splits(parts, source)

    @cache
    def length(split: str) -> int:
        return sum(file.count() for file in source.splits[split])

    ranges = choose_ranges(parts, length)
    bad = BadRows(source.title, config.bad_rows, out.data)
    target = out.data / "rows.arrow"
    if config.shards is None:
        counts, _ = write_rows(source, ranges, None, bad, target, report)
    else:
        total = count_rows(ranges, length)
        order = rows_of_shard(total, config.shards, config.shards_idx or 0, config.seed)
        in_order = scratch / "in_order.arrow"
        scratch.mkdir(parents=True, exist_ok=True)
        counts, numbers = write_rows(source, ranges, order, bad, in_order, report)
        write_in_order(in_order, numbers, order, target)
    bad.finish(report)
    written = sum(counts.values())
    if written == 0:
        raise RowError(nothing(config, source, bad.count))
    report_source(source, counts, report)
    shutil.rmtree(scratch, ignore_errors=True)


def write_rows(
    source: RowSource, ranges: list[Range], only: Numbers | None, bad: BadRows, target: Path, report: Report
) -> tuple[Counter[str], Numbers]:
    """Write the rows of the ranges as Arrow batches, validating all of them; with `only`, those of these numbers.

    Returns how many by file, and the numbers of those that were written, counted from 0 over all ranges.
    """
    files = {file.name: file for item in ranges for file in source.splits[item.name]}
    unit = "line" if all(file.unit == "line" for file in files.values()) else "row"
    # A single file is the same dataset under any name.
    nameless = len(files) == 1
    counts: Counter[str] = Counter({file.shown: 0 for file in files.values()})
    wanted = None if only is None else np.isin(np.arange(int(only.max(initial=-1)) + 1), only)
    numbers: list[int] = []
    with RowWriter(target, unit) as writer:
        for index, (file, position, row) in enumerate(rows_of(source, ranges)):
            if wanted is not None and (index >= len(wanted) or not wanted[index]):
                continue
            number = row.number if file.unit == unit else position
            try:
                text = text_of(row)
            except ValueError as error:
                given = loose_text(row.value) if row.problem is None else row.text
                bad.add(RowPlace(file.shown, unit, number), str(error), given)
                continue
            bad.add_good(1)
            if bad.stops:
                continue
            counts[file.shown] += 1
            if only is not None:
                numbers.append(index)
            if writer.add(text, number, "" if nameless else file.name):
                report.progress(counts.total(), None, "rows")
    return counts, np.array(numbers, dtype=np.int64)


class RowWriter:
    """Writes rows to an Arrow file in batches. `unit` says what the rows' numbers count."""

    def __init__(self, target: Path, unit: str) -> None:
        self.schema = pa.schema(COLUMNS, metadata={"unit": unit})
        self.columns: tuple[list[str | int], ...] = ([], [], [])
        self.characters = 0
        self.sink = pa.OSFile(str(target), "wb")
        self.writer = pa.ipc.new_file(self.sink, self.schema)

    def add(self, text: str, number: int, file: str) -> bool:
        """Take a row. Returns whether a batch has been written."""
        row: tuple[str | int, ...] = (text, number, file)
        for values, value in zip(self.columns, row, strict=True):
            values.append(value)
        self.characters += len(text)
        full = len(self.columns[0]) >= BATCH_ROWS or self.characters >= BATCH_CHARACTERS
        if full:
            self._flush()
        return full

    def _flush(self) -> None:
        if self.columns[0]:
            columns = [
                column(values, field.type) for values, field in zip(self.columns, self.schema, strict=True)
            ]
            self.writer.write_batch(pa.record_batch(columns, schema=self.schema))
        self.columns = ([], [], [])
        self.characters = 0

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self.writer.close()
        self.sink.close()


def text_of(row: Row) -> str:
    """The row as JSON text. Raises ValueError where it cannot be one."""
    if row.problem is not None:
        raise ValueError(row.problem)
    return json_text(row.value)


def nothing(config: DatasetConfig, source: RowSource, rejected: int) -> str:
    """Why there are no rows at all."""
    if rejected:
        return f"{source.title}: none of the {rejected} rows can be used"
    asked = [f"split: {config.split}"] if config.split else []
    asked += [f"shard {config.shards_idx or 0} of {config.shards}"] if config.shards else []
    return f"{source.title} has no rows{' in ' + ', '.join(asked) if asked else ''}"


def report_source(source: RowSource, counts: Counter[str], report: Report) -> None:
    """Where the rows came from, as figures and, for several files, a table."""
    commit = {} if source.commit is None else {"commit": source.commit}
    report.summary(rows=counts.total(), source=source.kind, **commit)
    if len(counts) > 1:
        rows: list[tuple[str, int]] = list(counts.items())[:LISTED_FILES]
        more = len(counts) - len(rows)
        if more:
            rows.append((f"{more} more files", counts.total() - sum(count for _, count in rows)))
        report.table("Rows by file", ["file", "rows"], rows)
