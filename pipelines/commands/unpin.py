"""`tunemill unpin`: a node follows its YAML again."""

import argparse
from typing import Any

from tunemill.pipelines.commands.options import add_command, add_json, add_state, print_json, store_of


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "unpin", unpin, text)
    parser.add_argument("name", metavar="PIPELINE/NODE")
    add_state(parser)
    add_json(parser)


def unpin(options: argparse.Namespace) -> int:
    """Take the pin away."""
    from tunemill.pipelines.run.pinned import unpin as unpin_node

    before = unpin_node(options.name, store_of(options))
    if options.json:
        print_json({"node": options.name, "was": None if before is None else before.as_json()})
    else:
        was = "its pin was damaged" if before is None else f"it was {before}"
        print(f"{options.name} is no longer pinned ({was}); the next run brings it up to date")
    return 0
