"""`tunemill check`: is this YAML right, and what it names on this machine there? Reads no rows, asks no network."""

import argparse
from typing import Any

from tunemill.pipelines.commands.options import add_command, add_json, add_pipeline, note_lines, print_json
from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.looks import everything


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "check", check, text)
    add_pipeline(parser)
    add_json(parser)


def check(options: argparse.Namespace) -> int:
    """Print every problem and every note; 1 if there is any problem."""
    try:
        pipeline = load_pipeline(options.pipeline, options.overrides, everything)
    except ConfigError as error:
        if not options.json:
            raise
        print_json([problem.as_json() for problem in error.ordered()])
        return 1
    if options.json:
        print_json([note.as_json() for note in pipeline.notes])
        return 0
    for line in note_lines(pipeline):
        print(line)
    print(f"{options.pipeline}: no problem; {len(pipeline.nodes)} nodes")
    return 0
