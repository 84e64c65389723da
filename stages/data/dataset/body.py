"""The body of the dataset stage: read, validate, write JSON text."""

import shutil
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np

from tunemill.stages.data.dataset.config import DatasetConfig
from tunemill.stages.data.dataset.row_writer import RowWriter
from tunemill.stages.data.dataset.shards import Numbers, rows_of_shard, write_in_order
from tunemill.stages.data.rows.bad_rows import BadRows, none_left
from tunemill.stages.data.sources.blocks import blocks_of_ranges
from tunemill.stages.data.sources.rows import Block, RowSource
from tunemill.stages.data.sources.selection import check_splits, default_parts
from tunemill.stages.data.sources.source import open_source
from tunemill.stages.data.sources.split import Range, choose_ranges, count_rows
from tunemill.stages.errors import RowError, RowPlace
from tunemill.stages.report import Report, Workspace

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
        raise none_left(bad) if bad.count else RowError(nothing(config, source))
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
    before = 0
    with RowWriter(target, unit, lambda count: report.progress(count, None, "rows")) as writer:
        for file, first, block in blocks_of_ranges(source, ranges):
            rows = block.rows
            places = block.numbers if file.unit == unit else range(first, first + len(rows))
            kept: Sequence[int] = range(len(rows))
            if wanted is not None:
                kept = np.flatnonzero(wanted[before : before + len(rows)]).tolist()
            if not block.is_whole:
                kept = _good(block, kept, places, file.shown, unit, bad)
            if len(kept) < len(rows):
                all_rows = [*rows]
                rows, places = [all_rows[index] for index in kept], [places[index] for index in kept]
            bad.add_good(len(kept))
            if not bad.stops:
                counts[file.shown] += len(kept)
                if only is not None:
                    numbers += [before + index for index in kept]
                writer.add(cast("Sequence[bytes]", rows), places, "" if nameless else file.name)
            before += len(block.rows)
    return counts, np.array(numbers, dtype=np.int64)


def _good(
    block: Block, kept: Sequence[int], places: Sequence[int], file: str, unit: str, bad: BadRows
) -> list[int]:
    """Which of the rows `kept` of a block can be used; the others are bad rows."""
    good = []
    for index in kept:
        row = block.rows[index]
        if isinstance(row, bytes):
            good.append(index)
        else:
            assert row.problem is not None, "a row without a problem has a text"
            bad.add(RowPlace(file, unit, places[index]), row.problem, row.text)
    return good


def nothing(config: DatasetConfig, source: RowSource) -> str:
    """Why there are no rows at all, not even bad ones."""
    asked = [f"split: {config.split}"] if config.split else []
    asked += [f"shard {config.shards_idx or 0} of {config.shards}"] if config.shards else []
    return f"{source.title} has no rows{' in ' + ', '.join(asked) if asked else ''}"


def report_source(source: RowSource, counts: Counter[str], report: Report) -> None:
    """Where the rows came from, as figures and, for several files, a table."""
    commit = {} if source.commit is None else {"commit": source.commit}
    licence = {} if source.licence is None else {"license": source.licence}
    report.summary(rows=counts.total(), source=source.kind, **commit, **licence)
    if len(counts) > 1:
        rows: list[tuple[str, int]] = list(counts.items())[:LISTED_FILES]
        more = len(counts) - len(rows)
        if more:
            rows.append((f"{more} more files", counts.total() - sum(count for _, count in rows)))
        report.table("Rows by file", ["file", "rows"], rows)
