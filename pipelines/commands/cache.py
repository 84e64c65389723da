"""`tunemill cache ls | verify | prune`: look after the store."""

import argparse
from pathlib import Path
from typing import Any

from tunemill.pipelines.commands.options import add_command, add_json, add_state, print_json, store_of
from tunemill.pipelines.commands.tables import listing, stdout
from tunemill.pipelines.graph.differences import SHORT
from tunemill.resources.prune import Garbage, find_garbage
from tunemill.resources.prune import prune as delete_garbage
from tunemill.resources.store import Published, Store


def add_to(commands: Any) -> None:
    """Add the commands."""
    parser = add_command(commands, "cache", ls, "look after the store: ls, verify, prune")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    for name, function, text in (
        ("ls", ls, "list every artifact"),
        ("verify", verify, "hash every file again; set damaged artifacts aside"),
        ("prune", prune, "delete what no node points to any more"),
    ):
        action = add_command(actions, name, function, text)
        add_state(action)
        add_json(action)
        if name == "prune":
            action.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
            action.add_argument(
                "--checkpoints", action="store_true", help="also of attempts that can be resumed"
            )


def ls(options: argparse.Namespace) -> int:
    """List the artifacts of the store."""
    store = store_of(options)
    items = [_describe(store, folder) for folder in store.artifacts()]
    if options.json:
        print_json({"state": str(store.root), "artifacts": items})
        return 0
    columns = ("stage", "node", "key", "digest", "bytes", "seconds", "started")
    rows = [
        [
            i["stage"],
            i["node"],
            i["key"][:SHORT],
            (i["digest"] or "damaged")[:SHORT],
            i["bytes"],
            i["seconds"],
            i["started"],
        ]
        for i in items
    ]
    stdout().print(listing(columns, rows))
    return 0


def verify(options: argparse.Namespace) -> int:
    """Hash everything; name damaged files, set their artifacts aside; 1 if there was any."""
    store = store_of(options)
    damaged = []
    for folder in store.artifacts():
        if wrong := store.verify(folder):
            aside = store.set_aside(folder.parent.name, folder.name)
            damaged.append({"artifact": str(folder), "files": wrong, "set_aside": str(aside)})
    if options.json:
        print_json(
            {"state": str(store.root), "checked": len(store.artifacts()) + len(damaged), "damaged": damaged}
        )
    else:
        for item in damaged:
            print("\n".join(item["files"]))
            print(f"  set aside in {item['set_aside']}; the next run computes it again")
        print(f"{len(store.artifacts())} artifacts are whole, {len(damaged)} damaged")
    return 1 if damaged else 0


def prune(options: argparse.Namespace) -> int:
    """Delete artifacts that no node needs, leftovers of dead attempts, and what was set aside."""
    store = store_of(options)
    garbage = (find_garbage if options.dry_run else delete_garbage)(store, options.checkpoints)
    if options.json:
        found = [{"path": str(i.folder), "bytes": i.bytes, "why": i.why} for i in garbage]
        print_json({"state": str(store.root), "deleted": not options.dry_run, "garbage": found})
    else:
        _print_garbage(store, garbage, options.dry_run)
    return 0


def _print_garbage(store: Store, garbage: list[Garbage], dry_run: bool) -> None:
    rows = [[item.folder.relative_to(store.root), item.bytes, item.why] for item in garbage]
    console = stdout()
    console.print(listing(("folder", "bytes", "why"), rows))
    verb = "would be deleted" if dry_run else "deleted"
    console.print(f"{sum(item.bytes for item in garbage)} bytes in {len(garbage)} folders {verb}")


def _describe(store: Store, folder: Path) -> dict[str, Any]:
    found = store.lookup(folder.parent.name, folder.name)
    manifest = found.manifest if isinstance(found, Published) else {}
    size = sum(entry["bytes"] for entry in manifest.get("files", {}).values())
    return {
        "stage": folder.parent.name,
        "key": folder.name,
        "path": str(folder),
        "node": f"{manifest.get('pipeline')}/{manifest.get('node')}",
        "digest": manifest.get("digest"),
        "bytes": size,
        "seconds": manifest.get("seconds"),
        "started": manifest.get("started"),
    }
