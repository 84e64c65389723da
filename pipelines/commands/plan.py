"""`tunemill plan`: what would run, and why."""

import argparse
from typing import Any

from tunemill.pipelines.check import load_pipeline
from tunemill.pipelines.commands.options import (
    add_command,
    add_json,
    add_pipeline,
    add_state,
    print_json,
    store_of,
)
from tunemill.pipelines.plan import make_plan
from tunemill.pipelines.tables import plan_table, stdout


def add_to(commands: Any) -> None:
    """Add the command."""
    parser = add_command(
        commands, "plan", plan, "show what is cached, what will run and why; changes nothing"
    )
    add_pipeline(parser)
    add_state(parser)
    add_json(parser)


def plan(options: argparse.Namespace) -> int:
    """Print the plan."""
    pipeline = load_pipeline(options.pipeline, options.overrides)
    planned = make_plan(pipeline, store_of(options))
    if options.json:
        print_json({"pipeline": pipeline.name, "nodes": [item.as_json() for item in planned]})
        return 0
    console = stdout()
    console.print(plan_table(planned))
    to_run = sum(item.state == "run" for item in planned)
    console.print(f"\n{to_run} of {len(planned)} nodes to run" if to_run else "\nnothing to run")
    return 0
