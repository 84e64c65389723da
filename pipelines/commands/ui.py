"""`tunemill ui`: Dagster on 127.0.0.1, over the pipelines of a folder."""

import argparse
import os
import socket
import sys
from typing import Any

from tunemill.pipelines.commands.options import add_command, add_state, state_folder, team_url
from tunemill.pipelines.commands.signals import end_on_interrupt_and_term
from tunemill.resources.errors import StoreError
from tunemill.resources.local import local_path
from tunemill.resources.protocols import THIS_MACHINE


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "ui", ui, text)
    parser.add_argument("folder", nargs="?", default=None, help="where the YAMLs are (default: here)")
    parser.add_argument("--port", type=_port, default=3000, help="1 to 65535 (default: 3000)")
    add_state(parser)


def ui(options: argparse.Namespace) -> int:
    """Become `dagster dev`."""
    # The import costs a second, so only this command pays for it.
    from tunemill.pipelines.assets.instance import dagster_home
    from tunemill.pipelines.config.pipeline_files import pipeline_files
    from tunemill.pipelines.graph.check_files import NO_PIPELINE

    state = state_folder(options)
    team_url(options)
    folder = local_path(options.folder or ".", "the folder of pipelines").absolute()
    if not folder.is_dir():
        raise StoreError(f"{folder}: there is no such folder of pipelines; give one that is there")
    _check_port(options.port)
    if next(pipeline_files(folder), None) is None:
        print(f"{folder}: {NO_PIPELINE}", file=sys.stderr)
    home = dagster_home(state)
    if not os.access(home, os.W_OK):
        raise StoreError(f"{home} may not be written, and Dagster keeps its runs there; give another --state")
    environment = {
        **os.environ,
        "TUNEMILL_HOME": str(state),
        "TUNEMILL_PIPELINES": str(folder),
        "DAGSTER_HOME": str(home),
        **({} if options.store is None else {"TUNEMILL_STORE": options.store}),
    }
    module = ["-m", "tunemill.pipelines.assets.definitions"]
    end_on_interrupt_and_term()
    command = ["dagster", "dev", *module, "-h", THIS_MACHINE, "-p", str(options.port)]
    os.execve(sys.executable, [sys.executable, "-m", *command], environment)  # noqa: S606  becomes Dagster


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; give a number from 1 to 65535")
    return int(text)


def _check_port(port: int) -> None:
    """Raises StoreError if the port cannot be had: Dagster would say so only after it has loaded everything."""
    with socket.socket() as trial:
        # As the server does: connections of an earlier one that are still closing are no obstacle.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((THIS_MACHINE, port))
        except OSError as error:
            raise StoreError(
                f"port {port} on {THIS_MACHINE}: {error.strerror}; give another one with --port"
            ) from error
