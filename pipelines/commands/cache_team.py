"""`tunemill cache ls | verify | prune --store URL`: look after the store that a team shares."""

import argparse
from typing import Any

from tunemill.pipelines.commands.listing import listing, readable_bytes, show
from tunemill.pipelines.commands.options import print_json, state_folder, team_url
from tunemill.pipelines.run.figures import count_of
from tunemill.resources.canonical import SHORT
from tunemill.resources.errors import StoreError
from tunemill.resources.objects import NO_TEAM, Objects, objects_at
from tunemill.resources.prune import named
from tunemill.resources.store import Store
from tunemill.resources.team_care import (
    TeamArtifact,
    prune_team,
    team_artifacts,
    team_garbage,
    verify_team,
)
from tunemill.resources.team_store import open_team

# What was published within so many days stays in a team's store.
DAYS = 30.0


def is_of_team(options: argparse.Namespace) -> bool:
    """Whether the command is about a team's store and not about the one of this machine."""
    return bool(options.store) and options.store != NO_TEAM


def team_ls(options: argparse.Namespace) -> int:
    """List the artifacts of a team's store."""
    objects = _objects(options)
    items = [_describe(item) for item in team_artifacts(objects)]
    if options.json:
        print_json({"store": objects.url, "artifacts": items})
        return 0
    columns = ("stage", "node", "key", "digest", "size", "seconds", "since")
    rows = [
        [
            item["stage"],
            item["node"],
            item["key"][:SHORT],
            (item["digest"] or "damaged")[:SHORT],
            readable_bytes(item["bytes"]),
            item["seconds"],
            item["since"],
        ]
        for item in items
    ]
    show(listing(columns, rows))
    return 0


def team_verify(options: argparse.Namespace) -> int:
    """Read every file of a team's store; 1 if anything is damaged, which is not found any more then.

    What this machine has of it whole, its next run sends again.
    """
    team = open_team(_url(options), state_folder(options))
    looked = list(verify_team(team.objects))
    damaged = [
        {"stage": item.place[0], "key": item.place[1], "why": why} for item, why in looked if why is not None
    ]
    for item in damaged:
        team.notes.forget_sent(item["stage"], item["key"])
    if options.json:
        print_json({"store": team.objects.url, "checked": len(looked), "damaged": damaged})
    else:
        for item in damaged:
            what = f"{item['stage']} {item['key'][:SHORT]}: {item['why']}"
            show(f"{what}; the next run sends what is here, or computes it")
        show(f"{len(looked) - len(damaged)} artifacts are whole, {len(damaged)} damaged")
    return 1 if damaged else 0


def team_prune(options: argparse.Namespace) -> int:
    """Delete what was published long ago, and what no manifest names. Raises StoreError where options contradict."""
    for name, given in (("--checkpoints", options.checkpoints), ("--kept", options.kept)):
        if given:
            raise StoreError(f"{name}: is of this machine; leave --store out")
    if options.keep_bytes is not None:
        raise StoreError("--keep-bytes: is of this machine, whose room is short; leave --store out")
    objects, store = _objects(options), Store(state_folder(options))
    needed = named(store)
    days = DAYS if options.days is None else options.days
    found = (team_garbage if options.dry_run else prune_team)(objects, needed, days)
    if options.json:
        told = [{"name": item.name, "bytes": item.bytes, "why": item.why} for item in found]
        print_json({"store": objects.url, "deleted": not options.dry_run, "garbage": told})
        return 0
    show(listing(("name", "size", "why"), [[i.name, readable_bytes(i.bytes), i.why] for i in found]))
    verb = "would be deleted" if options.dry_run else "deleted"
    size = readable_bytes(sum(item.bytes for item in found))
    show(f"{size} in {count_of(len(found), 'place')} {verb}")
    return 0


def _objects(options: argparse.Namespace) -> Objects:
    return objects_at(_url(options).rstrip("/"))


def _url(options: argparse.Namespace) -> str:
    url = team_url(options)
    assert url is not None, "asked by is_of_team"
    return url


def _describe(item: TeamArtifact) -> dict[str, Any]:
    manifest = {} if item.entry is None else item.entry.manifest
    return {
        "stage": item.place[0],
        "key": item.place[1],
        "node": f"{manifest.get('pipeline')}/{manifest.get('node')}",
        "digest": manifest.get("digest"),
        "bytes": item.bytes,
        "seconds": manifest.get("seconds"),
        "since": item.changed.isoformat(timespec="seconds"),
        "fence": None if item.entry is None else item.entry.fence,
    }
