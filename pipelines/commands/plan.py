"""`tunemill plan`: what would run, and why."""

import argparse
from typing import Any

from tunemill.pipelines.commands.listing import show
from tunemill.pipelines.commands.options import (
    add_command,
    add_json,
    add_pipeline,
    add_state,
    note_lines,
    print_json,
    store_of,
)
from tunemill.pipelines.commands.tables import plan_table
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.looks import everything
from tunemill.pipelines.graph.plan import make_plan


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "plan", plan, text)
    add_pipeline(parser)
    add_state(parser)
    add_json(parser)


def plan(options: argparse.Namespace) -> int:
    """Print the plan."""
    pipeline = load_pipeline(options.pipeline, options.overrides, everything)
    planned = make_plan(pipeline, store_of(options))
    if options.json:
        print_json(
            {
                "pipeline": pipeline.name,
                "nodes": [item.as_json() for item in planned],
                "notes": [note.as_json() for note in pipeline.notes],
            }
        )
        return 0
    for line in note_lines(pipeline):
        show(line)
    show(plan_table(planned))
    to_run = sum(item.state == "run" for item in planned)
    show(f"\n{to_run} of {len(planned)} nodes to run" if to_run else "\nnothing to run")
    return 0
