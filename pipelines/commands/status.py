"""`tunemill status`: what every node points to now."""

import argparse
from typing import Any

from tunemill.pipelines.commands.options import add_command, add_json, add_state, print_json, store_of
from tunemill.pipelines.commands.tables import listing, stdout
from tunemill.pipelines.graph.differences import SHORT
from tunemill.resources.refs import Ref
from tunemill.resources.store import Published, Store


def add_to(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, "status", status, "show what every node of every pipeline points to now")
    parser.add_argument("names", nargs="*", metavar="PIPELINE", help="names of pipelines (default: all)")
    add_state(parser)
    add_json(parser)


def status(options: argparse.Namespace) -> int:
    """Print the refs with what is known of their artifacts; 1 if one has no bytes any more."""
    store = store_of(options)
    nodes = [
        {"pipeline": pipeline, "node": node, **_facts(store, ref)}
        for pipeline, node, ref in store.refs.all()
        if not options.names or pipeline in options.names
    ]
    if options.json:
        print_json({"state": str(store.root), "nodes": nodes})
    else:
        columns = ("pipeline", "node", "state", "started", "seconds", "digest")
        rows = [[*(str(node[c] or "") for c in columns[:-1]), node["digest"][:SHORT]] for node in nodes]
        stdout().print(
            listing(columns, rows) if rows else f"{store.root}: nothing has been computed here yet"
        )
    return 1 if any(node["state"] != "present" for node in nodes) else 0


def _facts(store: Store, ref: Ref) -> dict[str, Any]:
    found = store.lookup(ref.stage, ref.key)
    known = isinstance(found, Published)
    manifest = found.manifest if isinstance(found, Published) else {}
    return {
        "stage": ref.stage,
        "state": "present" if known else "missing or damaged",
        "key": ref.key,
        "digest": ref.digest,
        "path": str(found.data) if isinstance(found, Published) else None,
        "started": manifest.get("started"),
        "seconds": manifest.get("seconds"),
        "metrics": manifest.get("metrics", {}),
    }
