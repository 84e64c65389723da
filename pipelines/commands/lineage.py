"""`tunemill lineage`: which data and which settings made this model; with `--of`, which models contain a dataset."""

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import Any

from rich.markup import escape
from rich.tree import Tree

from tunemill.pipelines.commands.find_artifact import Found, find_lineage, some_of
from tunemill.pipelines.commands.lineage_of import ALL, lineage_of
from tunemill.pipelines.commands.listing import listing, stdout
from tunemill.pipelines.commands.options import add_command, add_json, add_state, print_json, store_of
from tunemill.pipelines.graph.lineage import contents_of, datasets_behind, settings_of
from tunemill.pipelines.graph.lineage_names import full_name
from tunemill.resources.canonical import SHORT
from tunemill.resources.errors import StoreError
from tunemill.resources.pins import Pin
from tunemill.resources.store import Absent, Store

VALUE_SHOWN = 100


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "lineage", lineage, text)
    parser.add_argument("what", nargs="?", default=None, metavar="PIPELINE/NODE | PATH | DIGEST")
    parser.add_argument(
        "--of",
        metavar="DATASET",
        help="the models that contain a file, a folder, a dataset of the Hub, or first letters of contents",
    )
    parser.add_argument(
        "--rows",
        nargs="?",
        const=ALL,
        metavar="N",
        help="with --of: which rows of it are in them, and why others are not; or what became of row N",
    )
    add_state(parser)
    add_json(parser)


def lineage(options: argparse.Namespace) -> int:
    """Print the chain behind an artifact, from the artifact alone; what the store knows of its parts beside it."""
    if (options.what is None) == (options.of is None):
        raise StoreError("name a model, as PIPELINE/NODE, or a dataset with --of FILE")
    if options.of is not None:
        return lineage_of(options.of, options.rows, store_of(options, looks=True), as_json=options.json)
    if options.rows is not None:
        raise StoreError("--rows asks for rows of a dataset: name it with --of FILE")
    found = find_lineage(options.what, store_of(options, looks=True))
    if options.json:
        print_json(as_json(found))
        return 0
    root = found.lineage
    console = stdout()
    tree = Tree(_label(root["node"], root, found.store, _pinned_now(found)))
    if found.also:
        tree.add(f"[dim]the same as {escape(some_of(found.also))}[/]")
    _grow(tree, root, found, {root["key"]})
    console.print(tree)
    console.print()
    rows = [[d["node"], d["rows"], contents_of(d), d["path"]] for d in datasets_behind(root)]
    console.print(listing(("dataset", "rows", "contents", "file"), rows))
    return 0


def as_json(found: Found) -> dict[str, Any]:
    """The lineage with what is told of each artifact beside what it says itself."""
    root = found.lineage
    ancestors = {key: {**item, **_told(item, found.store)} for key, item in root["ancestors"].items()}
    return {
        **root,
        **_told(root, found.store),
        "ancestors": ancestors,
        "also": list(found.also),
        "pin": None if (pin := _pin(found)) is None else pin.as_json(),
        "not_recorded_ancestors": sorted(_unknown(root)),
        "datasets": list(datasets_behind(root)),
    }


def _told(item: Mapping[str, Any], store: Store | None) -> dict[str, Any]:
    return {"settings": settings_of(item), "problem": _problem(item, store)}


def _unknown(root: Mapping[str, Any]) -> Iterator[str]:
    """The keys of inputs of which there is no lineage."""
    for item in (root, *root["ancestors"].values()):
        keys = [edge["key"] for edges in item["inputs"].values() for edge in edges]
        yield from (key for key in keys if key not in root["ancestors"])


def _problem(item: Mapping[str, Any], store: Store | None) -> str | None:
    """What is wrong with an artifact, or with what is known of it; None where nothing is, or no store is known."""
    said = []
    if missing := item.get("not_recorded"):
        said.append(f"not recorded: {', '.join(missing)}")
    if store is not None and item["stage"]:
        match store.lookup(item["stage"], item["key"]):
            case Absent(damage=()):
                said.append("no longer in the store")
            case Absent(reason=reason):
                said.append(reason)
    return "; ".join(said) or None


def _label(name: str, item: Mapping[str, Any], store: Store | None, pinned: str = "") -> str:
    by = f"  computed by {item['computed_by']}" if "computed_by" in item else ""
    facts = f"{item['digest'][:SHORT]}  {item['started']}  {item['seconds']:.1f} s{by}"
    problem = _problem(item, store)
    facts += f"  {pinned}" if pinned else ""
    return f"[bold]{escape(name)}[/]  {escape(facts)}" + (f"  [red]{escape(problem)}[/]" if problem else "")


def _grow(tree: Tree, item: Mapping[str, Any], found: Found, seen: set[str]) -> None:
    """Settings and sources of an artifact, then what it was made from; of what occurs twice only at the first time."""
    for line in _settings(item):
        tree.add(f"[dim]{escape(line)}[/]")
    for edge in (edge for edges in item["inputs"].values() for edge in edges):
        upstream = found.lineage["ancestors"].get(edge["key"])
        name = full_name(item["node"], edge["node"])
        if upstream is None:
            tree.add(
                f"[bold]{escape(name)}[/]  [red]nothing is recorded of it[/] ({escape(edge['key'][:SHORT])})"
            )
            continue
        is_own = upstream["node"].partition("/")[0] == name.partition("/")[0]
        pinned = _pinned_when_used(edge)
        branch = tree.add(_label(name if is_own else upstream["node"], upstream, found.store, pinned))
        if edge["key"] not in seen:
            seen.add(edge["key"])
            _grow(branch, upstream, found, seen)


def _pinned_when_used(edge: Mapping[str, Any]) -> str:
    """That an input was pinned when it was used."""
    pinned = edge.get("pinned")
    if not isinstance(pinned, dict):
        return ""
    why = f" ({pinned['reason']})" if pinned.get("reason") else ""
    return f"was pinned, since {pinned.get('since')}{why}"


def _pinned_now(found: Found) -> str:
    """That the node of a lineage is pinned to its artifact."""
    pin = _pin(found)
    return "" if pin is None else str(pin)


def _pin(found: Found) -> Pin | None:
    name = found.lineage["node"]
    if found.store is None or name.count("/") != 1:
        return None
    pin = found.store.pins.read(*name.split("/"))
    return pin if pin is not None and pin.key == found.lineage["key"] else None


def _settings(item: Mapping[str, Any]) -> Iterator[str]:
    for key, value in settings_of(item).items():
        text = (
            value if isinstance(value, str) and value.isprintable() else json.dumps(value, ensure_ascii=False)
        )
        yield f"{key}: {text}" if len(text) <= VALUE_SHOWN else f"{key}: {text[: VALUE_SHOWN - 3]}..."
    for field, sources in item["sources"].items():
        yield from (f"{field}: {source['path']} ({contents_of(source)})" for source in sources)
