"""`tunemill schema`: a JSON schema of the YAML or of one key, for editors; or a table of the keys, for people."""

import argparse
from typing import Any

from tunemill.pipelines.commands.options import add_command, print_json


def add_to(commands: Any, text: str, name: str = "schema") -> None:
    """Add the command."""
    parser = add_command(commands, name, schema, text)
    parser.add_argument("--markdown", action="store_true", help="print a table of the keys instead")
    parser.add_argument(
        "--field",
        metavar="KEY",
        help="of this key alone; what lies deeper by dots: quantization.weight_dtype",
    )


def schema(options: argparse.Namespace) -> int:
    """Print the schema. Raises UserError for a key that there is not."""
    # Only here: whoever asks for help waits for nothing else.
    from tunemill.pipelines.config.key_table import key_table
    from tunemill.pipelines.config.schema import field_schema, json_schema

    if options.field is not None:
        print_json(field_schema(options.field))
    elif options.markdown:
        print(key_table(), end="")
    else:
        print_json(json_schema())
    return 0
