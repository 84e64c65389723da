"""`tunemill ui`: Dagster on 127.0.0.1, over the pipelines of a folder."""

import argparse
import os
import sys
from typing import Any

from tunemill.pipelines.commands.options import add_command, add_state, state_folder
from tunemill.resources.errors import StoreError
from tunemill.resources.local import local_path


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "ui", ui, text)
    parser.add_argument("folder", nargs="?", default=None, help="where the YAMLs are (default: here)")
    parser.add_argument("--port", type=int, default=3000)
    add_state(parser)


def ui(options: argparse.Namespace) -> int:
    """Become `dagster dev`."""
    # The import costs a second, so only this command pays for it.
    from tunemill.pipelines.assets.instance import dagster_home

    state = state_folder(options)
    folder = local_path(options.folder or ".", "the folder of pipelines").absolute()
    if not folder.is_dir():
        raise StoreError(f"{folder}: there is no such folder of pipelines; give one that is there")
    environment = {
        **os.environ,
        "TUNEMILL_HOME": str(state),
        "TUNEMILL_PIPELINES": str(folder),
        "DAGSTER_HOME": str(dagster_home(state)),
    }
    module = ["-m", "tunemill.pipelines.assets.definitions"]
    command = ["dagster", "dev", *module, "-h", "127.0.0.1", "-p", str(options.port)]
    os.execve(sys.executable, [sys.executable, "-m", *command], environment)  # noqa: S606  becomes Dagster
