"""A lineage as it is published: without this machine's name, and of its paths only their ends."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunemill.pipelines.graph.told_places import Machine, this_machine, told, told_variable
from tunemill.stages.declaration import listed
from tunemill.stages.named import stage_named

# What of an item is about the machine.
LEFT_OUT = ("host", "computed_by")


def public_lineage(lineage: Mapping[str, Any], key: str, folder: Path) -> dict[str, Any]:
    """The lineage of the ancestor with this key, or of the lineage itself, with the ancestors behind it.

    `folder` is that of the YAML: `/home/me/project/data/rows.jsonl` becomes `/data/rows.jsonl`, which `reproduce
    --files` finds in another folder. Of what lies elsewhere the name is told.
    """
    own = {name: value for name, value in lineage.items() if name != "ancestors"}
    items = {**lineage["ancestors"], own["key"]: own}
    behind: dict[str, Any] = {}
    pending = [key]
    while pending:
        item = items.get(pending.pop())
        if item is not None and item["key"] not in behind:
            behind[item["key"]] = item
            pending += [edge["key"] for edges in item["inputs"].values() for edge in edges]
    hosts = {str(item["host"]) for item in behind.values() if item.get("host")}
    # What one item reads, another may name among its settings.
    paths = {path for item in behind.values() for path in _paths(item)}
    machine = this_machine(folder, hosts).knowing(paths)
    # Those that others are made of come first, as they were recorded.
    public = {name: _told(item, machine) for name, item in items.items() if name in behind}
    root = public.pop(key)
    return {**root, "ancestors": public}


def _told(item: Mapping[str, Any], machine: Machine) -> dict[str, Any]:
    plain = {name: value for name, value in item.items() if name not in LEFT_OUT}
    made_with = plain.get("made_with")
    if isinstance(made_with, dict):
        environment = made_with.get("environment") or {}
        shown = {name: told_variable(str(value)) for name, value in environment.items()}
        plain["made_with"] = {**made_with, "environment": shown}
    found: dict[str, Any] = told(plain, machine)
    return found


def _paths(item: Mapping[str, Any]) -> Iterator[str]:
    """The local paths that an item names: of its sources, and in the fields that name such."""
    stage = stage_named(item["stage"])
    fields = () if stage is None else stage.config.sources()
    named = [source["path"] for sources in item["sources"].values() for source in sources]
    for values in (item["config"], item.get("given", {})):
        named += [name for field in fields for name in listed(values.get(field)) if isinstance(name, str)]
    yield from (path for path in named if Path(path).is_absolute())
