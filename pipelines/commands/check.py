"""`tunemill check`: is this YAML right? Touches no source and no network."""

import argparse
from typing import Any

from tunemill.pipelines.check import load_pipeline
from tunemill.pipelines.commands.options import add_command, add_json, add_pipeline, print_json
from tunemill.pipelines.problems import ConfigError


def add_to(commands: Any) -> None:
    """Add the command."""
    parser = add_command(
        commands, "check", check, "check a YAML without touching data, models or the network"
    )
    add_pipeline(parser)
    add_json(parser)


def check(options: argparse.Namespace) -> int:
    """Print every problem; 1 if there is any."""
    try:
        pipeline = load_pipeline(options.pipeline, options.overrides)
    except ConfigError as error:
        if not options.json:
            raise
        print_json([problem.as_json() for problem in error.problems])
        return 1
    if options.json:
        print_json([])
    else:
        print(f"{options.pipeline}: no problem; {len(pipeline.nodes)} nodes")
    return 0
