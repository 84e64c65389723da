"""`tunemill schema`: a JSON schema of the YAML, for editors; or a table of the keys, for people."""

import argparse
from typing import Any

from tunemill.pipelines.commands.options import add_command, print_json
from tunemill.pipelines.config.key_table import key_table
from tunemill.pipelines.config.schema import json_schema


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "schema", schema, text)
    parser.add_argument("--markdown", action="store_true", help="print a table of the keys instead")


def schema(options: argparse.Namespace) -> int:
    """Print the schema."""
    if options.markdown:
        print(key_table(), end="")
    else:
        print_json(json_schema())
    return 0
