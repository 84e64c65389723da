"""Writing the report of a run, and finding it again."""

import os
from contextlib import suppress
from pathlib import Path

from tunemill.pipelines.graph.nodes import Pipeline
from tunemill.pipelines.report.page import page
from tunemill.pipelines.report.parts import parts_of
from tunemill.pipelines.run.look import look
from tunemill.pipelines.run.record import report_place
from tunemill.resources.errors import StoreError
from tunemill.resources.store import Store
from tunemill.stages.errors import UserError


def write_report(pipeline: Pipeline, store: Store, file: Path | None = None) -> Path:
    """Write the report of the last run, to where reports of runs lie unless a file is named; returns where it is.

    Raises OSError where it cannot be written.
    """
    seen = look(pipeline, store)
    record = next(iter(seen.records), None)
    where = file or report_place(store, pipeline.name, None if record is None else record.run)
    return write_page(where, page(parts_of(seen, store, record)))


def write_page(where: Path, text: str) -> Path:
    """Write a page, whole or not at all. Raises OSError."""
    where.parent.mkdir(parents=True, exist_ok=True)
    beside = where.with_name(f".{where.name}.{os.getpid()}")
    try:
        # Names of files may hold bytes that are no text.
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")
        beside.replace(where)
    finally:
        beside.unlink(missing_ok=True)
    return where


def keep_report(pipeline: Pipeline, store: Store) -> None:
    """Write it beside the record of the run, if that can be done: a run does not fail for it."""
    with suppress(OSError, StoreError, UserError):
        write_report(pipeline, store)
