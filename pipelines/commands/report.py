"""`tunemill report`: one page of a pipeline's last run for a browser."""

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
    from tunemill.pipelines.graph.load import load_pipeline
    from tunemill.pipelines.report.write import write_report

    pipeline = load_pipeline(options.pipeline, options.overrides)
    try:
        file = write_report(pipeline, store_of(options), options.html)
    except OSError as error:
        raise StoreError(f"{options.html or 'the report'}: cannot be written: {error.strerror}") from None
    if options.json:
        print_json({"pipeline": pipeline.name, "report": str(file)})
    else:
        print(f"report: {file}")
    return 0
