"""`tunemill lineage`: which data and which settings made this model."""

import argparse
from pathlib import Path
from typing import Any

from rich.tree import Tree

from tunemill.pipelines.commands.listing import listing, stdout
from tunemill.pipelines.commands.options import add_command, add_json, add_state, print_json, store_of
from tunemill.pipelines.graph.lineage import contents_of, datasets_behind, read_lineage
from tunemill.pipelines.graph.plan import upstream_asset
from tunemill.resources.canonical import SHORT
from tunemill.resources.errors import StoreError
from tunemill.resources.store import Absent, Published


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "lineage", lineage, text)
    parser.add_argument("what", metavar="MODEL_DIR | PIPELINE/NODE")
    add_state(parser)
    add_json(parser)


def lineage(options: argparse.Namespace) -> int:
    """Print the chain behind an artifact, from the artifact alone."""
    try:
        found = read_lineage(_folder(options))
    except FileNotFoundError as error:
        raise StoreError(str(error)) from error
    if options.json:
        print_json({**found, "datasets": list(datasets_behind(found))})
        return 0
    console = stdout()
    tree = Tree(_label(found))
    _grow(tree, found, found["ancestors"], set())
    console.print(tree)
    console.print()
    rows = [[d["node"], d["rows"], contents_of(d), d["path"]] for d in datasets_behind(found)]
    console.print(listing(("dataset", "rows", "contents", "file"), rows))
    return 0


def _folder(options: argparse.Namespace) -> Path:
    if (folder := Path(options.what)).is_dir():
        return folder
    match upstream_asset(f"asset://{options.what}", store_of(options)):
        case Published() as published:
            return published.data
        case Absent(reason=reason):
            raise StoreError(f"{options.what}: neither a folder nor a node with an artifact ({reason})")


def _label(item: dict[str, Any]) -> str:
    return f"[bold]{item['node']}[/]  {item['digest'][:SHORT]}  {item['started']}  {item['seconds']:.1f} s"


def _grow(tree: Tree, item: dict[str, Any], ancestors: dict[str, Any], seen: set[str]) -> None:
    for upstream in (ancestors[its["key"]] for upstreams in item["inputs"].values() for its in upstreams):
        branch = tree.add(_label(upstream))
        if upstream["key"] not in seen:
            seen.add(upstream["key"])
            _grow(branch, upstream, ancestors, seen)
