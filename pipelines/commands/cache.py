"""`tunemill cache ls | verify | prune`: look after the store."""

import argparse
import re
from decimal import Decimal
from typing import Any

from tunemill.pipelines.commands.cache_team import DAYS, is_of_team, team_ls, team_prune, team_verify
from tunemill.pipelines.commands.listing import listing, readable_bytes, show
from tunemill.pipelines.commands.options import add_command, add_json, add_state, print_json, store_of
from tunemill.pipelines.run.figures import count_of
from tunemill.resources.canonical import SHORT
from tunemill.resources.errors import StoreError
from tunemill.resources.evict import evict, evictable
from tunemill.resources.identity import files_below
from tunemill.resources.index import Place, Summary, summaries
from tunemill.resources.prune import Garbage, find_garbage, is_in_use, kept_by_stages
from tunemill.resources.prune import prune as delete_garbage
from tunemill.resources.store import Absent, Store


def add_to(commands: Any, text: str) -> None:
    """Add the commands."""
    parser = add_command(commands, "cache", ls, text)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    for name, function, what in (
        ("ls", ls, "list every artifact"),
        ("verify", verify, "hash every file again; set damaged artifacts aside"),
        ("prune", prune, "delete what no node points to any more"),
    ):
        action = add_command(actions, name, function, what)
        add_state(action)
        add_json(action)
        if name == "prune":
            action.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
            action.add_argument(
                "--checkpoints", action="store_true", help="also of attempts that can be resumed"
            )
            action.add_argument(
                "--keep-bytes",
                metavar="SIZE",
                type=_size,
                help="delete nothing but what the team has too, the oldest first, until so much is left here: 200GB",
            )
            action.add_argument(
                "--days",
                metavar="N",
                type=_days,
                help=f"with --store: delete what was published longer ago (default: {DAYS:g})",
            )
            action.add_argument(
                "--kept",
                action="store_true",
                help="also what stages keep for later, such as the answers of a judge, which is then asked again",
            )


def ls(options: argparse.Namespace) -> int:
    """List the artifacts of the store."""
    if is_of_team(options):
        return team_ls(options)
    store = store_of(options)
    places = [(folder.parent.name, folder.name) for folder in store.artifacts()]
    pinned = _pinned(store)
    items = [
        _describe(store, place, found, pinned.get(place, []))
        for place, found in summaries(store, places).items()
    ]
    if options.json:
        print_json({"state": str(store.root), "artifacts": items, "kept": _kept(store)})
        return 0
    columns = (
        "stage",
        "node",
        "key",
        "digest",
        "size",
        "seconds",
        "started",
        *(["pinned by"] if pinned else []),
    )
    rows = [
        [
            i["stage"],
            i["node"],
            i["key"][:SHORT],
            (i["digest"] or "damaged")[:SHORT],
            readable_bytes(i["bytes"]),
            i["seconds"],
            i["started"],
            *([", ".join(i["pinned_by"])] if pinned else []),
        ]
        for i in items
    ]
    show(listing(columns, rows))
    for item in _kept(store):
        size = readable_bytes(item["bytes"])
        show(
            f"{item['stage']} keeps {count_of(item['files'], 'file')}, {size}, in {item['path']}: prune --kept"
        )
    return 0


def verify(options: argparse.Namespace) -> int:
    """Hash everything; name damaged files, set their artifacts aside; 1 if there was any."""
    if is_of_team(options):
        return team_verify(options)
    store = store_of(options)
    pinned = _pinned(store)
    damaged = []
    for folder in store.artifacts():
        if wrong := store.verify(folder):
            aside = store.set_aside(folder.parent.name, folder.name)
            by = pinned.get((folder.parent.name, folder.name), [])
            damaged.append(
                {"artifact": str(folder), "files": wrong, "set_aside": str(aside), "pinned_by": by}
            )
    if options.json:
        print_json(
            {"state": str(store.root), "checked": len(store.artifacts()) + len(damaged), "damaged": damaged}
        )
    else:
        for item in damaged:
            print("\n".join(item["files"]))
            then = "the next run computes it again"
            if item["pinned_by"]:
                names = " ".join(item["pinned_by"])
                then = f"it is pinned, so runs are refused until: tunemill unpin {names}"
            print(f"  set aside in {item['set_aside']}; {then}")
        print(f"{len(store.artifacts())} artifacts are whole, {len(damaged)} damaged")
    return 1 if damaged else 0


def prune(options: argparse.Namespace) -> int:
    """Delete artifacts that no node needs, leftovers of dead attempts, and what was set aside."""
    if is_of_team(options):
        return team_prune(options)
    if options.days is not None:
        raise StoreError(
            "--days: is of a team's store, of which nobody knows what the others need: give --store URL. What no node "
            "of this machine points to goes at once"
        )
    store = store_of(options)
    pins = store.pins.all()
    busy = [item for item in kept_by_stages(store) if is_in_use(store, item)] if options.kept else []
    if options.keep_bytes is not None:
        for name, given in (("--checkpoints", options.checkpoints), ("--kept", options.kept)):
            if given:
                raise StoreError(
                    f"{name}: --keep-bytes deletes nothing but what the team has; give one of them"
                )
        garbage = (evictable if options.dry_run else evict)(store, options.keep_bytes)
    elif options.dry_run:
        garbage = find_garbage(store, options.checkpoints)
        garbage += [item for item in kept_by_stages(store) if item not in busy] if options.kept else []
    else:
        garbage = delete_garbage(store, options.checkpoints, options.kept)
    if options.json:
        found = [{"path": str(i.folder), "bytes": i.bytes, "why": i.why} for i in garbage]
        kept = [{"node": name, "path": str(store.folder(pin.stage, pin.key))} for name, pin in pins.items()]
        print_json(
            {"state": str(store.root), "deleted": not options.dry_run, "garbage": found, "kept_by_pins": kept}
        )
    else:
        _print_garbage(store, garbage, options.dry_run)
        for item in busy:
            show(f"{item.folder} stays: {item.folder.name} is running")
        for name, pin in pins.items():
            show(f"kept with all that it was made from: {name} is {pin}")
    return 0


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B?", text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write bytes, or such as 500MB or 200GB")
    return int(Decimal(found[1]) * 1000 ** " kMGT".index(found[2] or " "))


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days < 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of days; give 0 or more")
    return days


def _kept(store: Store) -> list[dict[str, Any]]:
    """What each stage keeps for itself."""
    return [
        {
            "stage": item.folder.name,
            "path": str(item.folder),
            "bytes": item.bytes,
            "files": sum(1 for _ in files_below(item.folder)),
        }
        for item in kept_by_stages(store)
    ]


def _print_garbage(store: Store, garbage: list[Garbage], dry_run: bool) -> None:
    rows = [[item.folder.relative_to(store.root), readable_bytes(item.bytes), item.why] for item in garbage]
    show(listing(("folder", "size", "why"), rows))
    verb = "would be deleted" if dry_run else "deleted"
    total = readable_bytes(sum(item.bytes for item in garbage))
    show(f"{total} in {count_of(len(garbage), 'folder')} {verb}")


def _pinned(store: Store) -> dict[Place, list[str]]:
    """The nodes that are pinned to an artifact."""
    found: dict[Place, list[str]] = {}
    for name, pin in store.pins.all().items():
        found.setdefault((pin.stage, pin.key), []).append(name)
    return found


def _describe(store: Store, place: Place, found: Summary | Absent, pinned_by: list[str]) -> dict[str, Any]:
    facts = found.facts if isinstance(found, Summary) else {}
    return {
        "stage": place[0],
        "key": place[1],
        "path": str(store.folder(*place)),
        "node": f"{facts.get('pipeline')}/{facts.get('node')}",
        "digest": found.digest if isinstance(found, Summary) else None,
        "bytes": sum(found.sizes.values()) if isinstance(found, Summary) else 0,
        "seconds": facts.get("seconds"),
        "started": facts.get("started"),
        "pinned_by": pinned_by,
    }
