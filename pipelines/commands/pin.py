"""`tunemill pin`: a node keeps the artifact that it has, whatever its YAML asks for."""

import argparse
from typing import Any

from tunemill.pipelines.commands.options import add_command, add_json, add_state, print_json, store_of


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "pin", pin, text)
    parser.add_argument("name", metavar="PIPELINE/NODE")
    parser.add_argument("--reason", metavar="TEXT", help="why, for whoever reads `plan`")
    parser.add_argument(
        "--artifact",
        metavar="KEY",
        help="another artifact of the node's stage: the first letters of its key or digest, as `cache ls` shows them",
    )
    add_state(parser)
    add_json(parser)


def pin(options: argparse.Namespace) -> int:
    """Pin the node."""
    from tunemill.pipelines.run.pinned import pin as pin_node

    made, artifact = pin_node(options.name, store_of(options), options.artifact, options.reason)
    if options.json:
        print_json({"node": options.name, **made.as_json(), "path": str(artifact.data)})
    else:
        print(f"{options.name} is {made}, in {artifact.data}")
    return 0
