"""`tunemill adopt`: a model, an adapter or prepared rows that exist already become an artifact with a name."""

import argparse
from pathlib import Path
from typing import Any

from tunemill.pipelines.commands.options import add_command, add_json, add_state, print_json, store_of
from tunemill.resources.canonical import SHORT


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "adopt", adopt, text)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--as", dest="name", required=True, metavar="NAME", help="pipelines say asset://NAME")
    add_state(parser)
    add_json(parser)


def adopt(options: argparse.Namespace) -> int:
    """Copy the folder into the store and name it."""
    from tunemill.pipelines.run.adopt import adopt as adopt_folder

    found = adopt_folder(options.folder, options.name, store_of(options, make=True))
    kind = found.manifest["artifact"][0]
    if options.json:
        print_json({"name": options.name, "artifact": kind, "digest": found.digest, "path": str(found.data)})
    else:
        print(f"asset://{options.name}: {kind} {found.digest[:SHORT]}, in {found.data}")
    return 0
