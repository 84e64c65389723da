"""`tunemill schema`: a JSON schema of the YAML, for editors."""

import argparse
from typing import Any

from tunemill.pipelines.commands.options import add_command, print_json
from tunemill.pipelines.schema import json_schema


def add_to(commands: Any) -> None:
    """Add the command."""
    add_command(commands, "schema", schema, "print a JSON schema of the YAML, for editors")


def schema(options: argparse.Namespace) -> int:  # noqa: ARG001  every command takes the options
    """Print the schema."""
    print_json(json_schema())
    return 0
