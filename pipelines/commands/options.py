"""Options that several commands share."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunemill.pipelines.commands.arguments import EPILOG
from tunemill.resources.errors import StoreError
from tunemill.resources.local import local_path, refusal, shown
from tunemill.resources.objects import NO_TEAM, fault_of_team_url
from tunemill.resources.store import Store, last_team, open_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunemill.pipelines.config.problems import Problem
    from tunemill.pipelines.graph.nodes import Pipeline

# The team's store of the last run.
LAST = "last"
# In bytes, for the names of artifacts and of what libraries put below them.
ROOM_FOR_STORE = 1000


def add_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, function: Any, text: str
) -> argparse.ArgumentParser:
    """A command that takes neither overrides nor a store."""
    parser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.set_defaults(command=function, takes_overrides=False, json=False)
    return parser


def add_pipeline(parser: argparse.ArgumentParser) -> None:
    """The YAML, and overrides of its keys."""
    parser.add_argument("pipeline", type=Path, metavar="PIPELINE.YML")
    parser.set_defaults(takes_overrides=True)
    add_sweep(parser)
    parser.add_argument("--point", metavar="NAME", help="of a sweep this point, as `tunemill plan` lists it")
    parser.epilog = EPILOG


def add_sweep(parser: argparse.ArgumentParser) -> None:
    """A sweep in a YAML of its own, as Axolotl has it."""
    parser.add_argument(
        "--sweep", metavar="FILE", help="a YAML of keys to sweep over, in place of pipeline.sweep"
    )


def add_pipelines(parser: argparse.ArgumentParser) -> None:
    """YAMLs, folders of them, and overrides that count for all."""
    parser.add_argument(
        "pipelines", type=_named, nargs="+", metavar="PIPELINE.YML", help="YAMLs, and folders with YAMLs"
    )
    parser.set_defaults(takes_overrides=True, takes_several=True)
    add_sweep(parser)
    parser.epilog = EPILOG


def _named(text: str) -> Path:
    """A path. An empty name, such as that of a variable that is not set, would be the working folder."""
    if not text:
        raise argparse.ArgumentTypeError("a name is empty; give a file or a folder, such as `.`")
    return Path(text)


def add_state(parser: argparse.ArgumentParser) -> None:
    """Where store and Dagster instance live."""
    parser.add_argument(
        "--state", metavar="DIR", help="where results live (default: TUNEMILL_HOME or .tunemill)"
    )
    parser.add_argument(
        "--store",
        metavar="URL",
        help="the store that a team shares (default: TUNEMILL_STORE or pipeline.store); `off`: only this machine's",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """One JSON document on stdout instead of a table."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def count_of(things: str, least: int = 0) -> Callable[[str], int]:
    """What reads a number of things that an option is given."""

    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no number of {things}; give {least} or more")
        return int(text)

    return read


def state_folder(options: argparse.Namespace) -> Path:
    """The folder that --state or TUNEMILL_HOME names; by default `.tunemill` where the command runs.

    Raises StoreError if it is not local.
    """
    named = options.state or os.environ.get("TUNEMILL_HOME") or ".tunemill"
    state = local_path(named, "the state folder").absolute()
    # What the path may have lost by being seen from here.
    local_path(state, "the state folder", ROOM_FOR_STORE)
    if reason := refusal(state):
        raise StoreError(f"the state folder: {shown(state)}: {reason}")
    return state


def store_of(
    options: argparse.Namespace, make: bool = False, named: str | None = LAST, looks: bool = False
) -> Store:
    """The store of the state folder, before that of the team, if there is one; with `make`, StoreError if the folder
    cannot be made. `named` is what the YAML names; without a YAML the last run's counts. Who only `looks` goes on where
    the team's store cannot be reached, and is told so.
    """
    root = state_folder(options)
    named = last_team(root) if named == LAST else named
    store = open_store(root) if make else Store(root)
    url = team_url(options, named)
    store = store if url is None else store.before(url)
    return store.forgiving(_once()) if looks else store


def _once() -> Callable[[str], None]:
    """Say on stderr why the team's store is not asked, the first time."""
    said: list[str] = []

    def say(message: str) -> None:
        if not said:
            print(f"note: {message}; what this machine knows of it is shown", file=sys.stderr)
        said.append(message)

    return say


def team_url(options: argparse.Namespace, named: str | None = None) -> str | None:
    """The store that a team shares: of --store, of TUNEMILL_STORE, or else the one that the YAML names.

    Raises StoreError for what can be none.
    """
    for where, url in (("--store", options.store), ("TUNEMILL_STORE", os.environ.get("TUNEMILL_STORE"))):
        if url == NO_TEAM:
            return None
        if url:
            if (fault := fault_of_team_url(url)) is not None:
                raise StoreError(f"{where}: {fault}")
            return str(url)
    return named


def refuse_unwritable(file: Path) -> None:
    """Raises StoreError where no file can be written: asked before what takes hours, not after it."""
    is_there = file.exists()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a"):
            pass
    except OSError as error:
        raise StoreError(f"{file}: cannot be written: {error.strerror}") from None
    if not is_there:
        file.unlink()


def print_json(document: Any) -> None:
    """The one JSON document of a `--json` command."""
    json.dump(document, sys.stdout, indent=1)
    print()


def note_lines(pipeline: "Pipeline") -> list[str]:
    """The notes on a pipeline's keys, in the order of the file."""
    return lines_of_notes(pipeline.notes, pipeline.document.path)


def lines_of_notes(notes: "Sequence[Problem]", file: Path) -> list[str]:
    """Notes on a file, in its order."""
    return [note.line_in(file) for note in sorted(notes, key=lambda note: note.order)]
