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
from tunemill.pipelines.commands.selected import add_selection, load_selected
from tunemill.pipelines.commands.tables import plan_table
from tunemill.pipelines.graph.plan import make_plan
from tunemill.pipelines.run.estimate import estimate


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "plan", plan, text)
    add_pipeline(parser)
    add_state(parser)
    add_json(parser)
    add_selection(parser)
    parser.add_argument(
        "--memory",
        action="store_true",
        help="estimate what each training will take of its device, without loading the model",
    )


def plan(options: argparse.Namespace) -> int:
    """Print the plan."""
    pipeline, chosen = load_selected(options)
    planned = make_plan(pipeline, store_of(options), chosen.refresh, chosen.only)
    estimated = estimate(planned)
    if options.json:
        memory = {}
        if options.memory:
            from tunemill.pipelines.commands.memory import memory_json

            memory = {"memory": memory_json(planned, store_of(options))}
        print_json(
            {
                "pipeline": pipeline.name,
                "nodes": [item.as_json() for item in planned],
                "estimated_seconds": estimated.seconds,
                "notes": [note.as_json() for note in pipeline.notes],
                **memory,
            }
        )
        return 0
    for line in note_lines(pipeline):
        show(line)
    show(plan_table(planned))
    to_run = sum(item.state == "run" for item in planned)
    show(f"\n{to_run} of {len(planned)} nodes to run; {estimated}" if to_run else "\nnothing to run")
    if options.memory:
        from tunemill.pipelines.commands.memory import show_memory

        show_memory(planned, store_of(options))
    return 0
