"""`tunemill report`: one page of a pipeline's last run, or of how the points of a sweep stand, for a browser."""

import argparse
from pathlib import Path
from typing import Any

from tunemill.pipelines.commands.options import (
    add_command,
    add_json,
    add_pipeline,
    add_state,
    print_json,
    store_of,
)
from tunemill.resources.errors import StoreError


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "report", report, text)
    add_pipeline(parser)
    add_state(parser)
    add_json(parser)
    parser.add_argument("--html", type=Path, metavar="FILE", help="write it there, not into the state folder")


def report(options: argparse.Namespace) -> int:
    """Write the page and say where it is."""
    from tunemill.pipelines.graph.sweep import is_sweep

    of_all = is_sweep(options.pipeline, options.overrides)
    try:
        name, file = (_of_sweep if of_all else _of_pipeline)(options)
    except OSError as error:
        raise StoreError(f"{options.html or 'the report'}: cannot be written: {error.strerror}") from None
    if options.json:
        print_json({"sweep" if of_all else "pipeline": name, "report": str(file)})
    else:
        print(f"report: {file}")
    return 0


def _of_pipeline(options: argparse.Namespace) -> tuple[str, Path]:
    from tunemill.pipelines.graph.load import load_pipeline
    from tunemill.pipelines.report.write import write_report

    pipeline = load_pipeline(options.pipeline, options.overrides)
    return pipeline.name, write_report(
        pipeline, store_of(options, named=pipeline.store, looks=True), options.html
    )


def _of_sweep(options: argparse.Namespace) -> tuple[str, Path]:
    """The page that compares the points, with what is there of them."""
    from tunemill.pipelines.commands.sweep_best import best_of
    from tunemill.pipelines.commands.sweep_html import page
    from tunemill.pipelines.graph.sweep import load_sweep
    from tunemill.pipelines.graph.sweep_plan import plan_sweep
    from tunemill.pipelines.report.write import write_page
    from tunemill.pipelines.run.record import report_place
    from tunemill.pipelines.run.sweep_standing import standing_point

    sweep = load_sweep(options.pipeline, options.overrides)
    store = store_of(options, named=sweep.store, looks=True)
    points = [standing_point(planned, store) for planned in plan_sweep(sweep, store)]
    file = options.html or report_place(store, sweep.name, None)
    return sweep.name, write_page(file, page(sweep, points, best_of(points, sweep.settings)))
