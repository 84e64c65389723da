"""A lineage as it is published: without this machine's name, and of its paths only their ends."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunemill.stages.declaration import listed
from tunemill.stages.registry import STAGES

# What of an item is about the machine.
LEFT_OUT = ("host", "computed_by")
# So much of a local path is told: what is meant, and the folder around it.
PARTS_TOLD = 2


def public_lineage(lineage: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The lineage of the ancestor with this key, with the ancestors behind it.

    `/home/me/project/data/rows.jsonl` becomes `/data/rows.jsonl`, which `reproduce --files` finds in another folder.
    """
    items = lineage["ancestors"]
    behind: dict[str, Any] = {}
    pending = [key]
    while pending:
        item = items.get(pending.pop())
        if item is not None and item["key"] not in behind:
            behind[item["key"]] = item
            pending += [edge["key"] for edges in item["inputs"].values() for edge in edges]
    # Those that others are made of come first, as they were recorded.
    # What one item reads, another may name among its settings.
    ends = {path: short_path(path) for item in behind.values() for path in _paths(item)}
    told = {name: _told(item, ends) for name, item in items.items() if name in behind}
    root = told.pop(key)
    return {**root, "ancestors": told}


def _told(item: Mapping[str, Any], ends: Mapping[str, str]) -> dict[str, Any]:
    plain = {name: value for name, value in item.items() if name not in LEFT_OUT}
    return {name: _replaced(value, ends) for name, value in plain.items()}


def short_path(path: str) -> str:
    """The end of a local path, as an absolute one."""
    return "/" + "/".join(Path(path).parts[1:][-PARTS_TOLD:])


def _paths(item: Mapping[str, Any]) -> Iterator[str]:
    """The local paths that an item names: of its sources, and in the fields that name such."""
    stage = next((stage for stage in STAGES if stage.name == item["stage"]), None)
    fields = () if stage is None else stage.config.sources()
    named = [source["path"] for sources in item["sources"].values() for source in sources]
    for values in (item["config"], item.get("given", {})):
        named += [name for field in fields for name in listed(values.get(field)) if isinstance(name, str)]
    yield from (path for path in named if Path(path).is_absolute())


def _replaced(value: Any, ends: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return ends.get(value, value)
    if isinstance(value, list):
        return [_replaced(item, ends) for item in value]
    if isinstance(value, dict):
        return {name: _replaced(item, ends) for name, item in value.items()}
    return value
