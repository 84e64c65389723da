"""`tunemill status`: what every node points to now."""

import argparse
from typing import Any

from tunemill.pipelines.commands.listing import listing, show
from tunemill.pipelines.commands.options import add_command, add_json, add_state, print_json, store_of
from tunemill.resources.canonical import SHORT
from tunemill.resources.index import Summary, summaries
from tunemill.resources.refs import Ref
from tunemill.resources.store import Absent, Store


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "status", status, text)
    parser.add_argument("names", nargs="*", metavar="PIPELINE", help="names of pipelines (default: all)")
    add_state(parser)
    add_json(parser)


def status(options: argparse.Namespace) -> int:
    """Print the refs with what is known of their artifacts; 1 if one has no bytes any more."""
    store = store_of(options)
    refs = [item for item in store.refs.all() if not options.names or item[0] in options.names]
    found = summaries(store, {(ref.stage, ref.key) for _, _, ref in refs})
    nodes = [
        {"pipeline": pipeline, "node": node, **_facts(store, ref, found[ref.stage, ref.key])}
        for pipeline, node, ref in refs
    ]
    if options.json:
        print_json({"state": str(store.root), "nodes": nodes})
    else:
        columns = ("pipeline", "node", "state", "started", "seconds", "digest")
        rows = [[*(str(node[c] or "") for c in columns[:-1]), node["digest"][:SHORT]] for node in nodes]
        show(listing(columns, rows) if rows else f"{store.root}: nothing has been computed here yet")
    return 1 if any(node["state"] != "present" for node in nodes) else 0


def _facts(store: Store, ref: Ref, found: Summary | Absent) -> dict[str, Any]:
    facts = found.facts if isinstance(found, Summary) else {}
    return {
        "stage": ref.stage,
        "state": "present" if isinstance(found, Summary) else "missing or damaged",
        "key": ref.key,
        "digest": ref.digest,
        "path": str(store.folder(ref.stage, ref.key) / "data") if isinstance(found, Summary) else None,
        "started": facts.get("started"),
        "seconds": facts.get("seconds"),
        "metrics": facts.get("metrics") or {},
    }
