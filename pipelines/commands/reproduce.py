"""`tunemill reproduce`: make a model again from the lineage inside its folder, and compare stage by stage."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tunemill.pipelines.commands.listing import listing, show
from tunemill.pipelines.commands.options import add_command, add_json, print_json, state_folder
from tunemill.resources.canonical import SHORT
from tunemill.resources.errors import StoreError
from tunemill.resources.store import Store, open_store

if TYPE_CHECKING:
    from tunemill.pipelines.run.reproduce import Reproduction

IDENTICAL, DIFFERS, CANNOT = 0, 1, 2
EPILOG = "Exit codes: 0 identical to the end, 1 something differs, 2 something that it takes is missing."


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "reproduce", reproduce, text)
    parser.add_argument("folder", type=Path, metavar="MODEL_DIR", help="a folder with tunemill_lineage.json")
    parser.add_argument(
        "--files",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="where data files and folders are that are not at their old paths any more",
    )
    parser.add_argument(
        "--state",
        metavar="DIR",
        help="an empty folder that keeps what is made (default: one that goes again)",
    )
    add_json(parser)
    parser.epilog = EPILOG


def reproduce(options: argparse.Namespace) -> int:
    """Make it again; 0 where every digest is what it was, 1 where one is not, 2 where it cannot be made."""
    from tunemill.pipelines.commands.signals import end_on_interrupt_and_term
    from tunemill.pipelines.graph.rebuilt import MissingError
    from tunemill.pipelines.run.progress import show_progress
    from tunemill.pipelines.run.reproduce import reproduce as make_again

    end_on_interrupt_and_term()
    files = [folder.absolute() for folder in options.files]
    try:
        with _empty_store(options) as store, show_progress() as display:
            found = make_again(options.folder, store, files, display)
    except MissingError as error:
        print(f"cannot reproduce {options.folder}: {error}", file=sys.stderr)
        if options.json:
            print_json({"outcome": "cannot", "missing": str(error)})
        return CANNOT
    if options.json:
        print_json(_as_json(found))
    else:
        _print(found, options.folder)
    return IDENTICAL if found.identical else DIFFERS


@contextmanager
def _empty_store(options: argparse.Namespace) -> Iterator[Store]:
    """The store that is asked for, which must be new or that of an earlier try; else one that goes again."""
    if options.state is None:
        with TemporaryDirectory(prefix="tunemill-reproduce-") as folder:
            yield Store(Path(folder))
        return
    # Of a team's store everything would be taken, and nothing made again.
    store = open_store(state_folder(options))
    others = {pipeline for pipeline, _, _ in store.refs.all()} - {"reproduced", "adopted"}
    if others:
        raise StoreError(
            f"{store.root}: results of {', '.join(sorted(others))} are in it, and would be taken for what is made "
            f"again; name an empty folder with --state, or leave it out"
        )
    yield store


def _print(found: "Reproduction", folder: Path) -> None:
    rows = [
        [item.node, item.stage, item.before[:SHORT], (item.now or "")[:SHORT], item.state]
        for item in found.stages
    ]
    show(listing(("node", "stage", "then", "now", "outcome"), rows))
    show()
    if found.versions:
        show(f"other versions here: {'; '.join(found.versions)}")
    if found.identical:
        show(f"identical to the end: {len(found.stages)} stages, {folder} is what its lineage says")
        return
    show(f"the first difference is at {found.where}:")
    for line in found.differences:
        show(f"  {line}")
    if any(item.now is not None for item in found.stages) and not found.versions:
        show("  every version is what it was: the machine, its cores or a GPU may sum in another order")


def _as_json(found: "Reproduction") -> dict[str, Any]:
    return {
        "outcome": "identical" if found.identical else "differs",
        "where": found.where,
        "differences": list(found.differences),
        "versions": list(found.versions),
        "stages": [{**asdict(item), "state": item.state} for item in found.stages],
    }
