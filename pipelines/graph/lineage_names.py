"""Whose nodes a lineage names: those of the pipeline that is asked about, whoever computed their artifacts first."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tunemill.pipelines.config.slices import ASSET_SCHEME
from tunemill.pipelines.graph.nodes import Node, Pipeline

# Of a node's full name, an input's name and what the input was made with: how the node's own pipeline calls the nodes
# that it has there (or `asset://` names), None where it has none.
Namer = Callable[[str, str, Sequence[Mapping[str, Any]]], Sequence[str | None]]


def named_by_graph(pipeline: Pipeline, node: Node, lineage: Mapping[str, Any]) -> dict[str, Any]:
    """The lineage of a node's artifact in the names of its pipeline's graph."""

    def namer(owner: str, name: str, edges: Sequence[Mapping[str, Any]]) -> Sequence[str | None]:
        its_pipeline, _, its_node = owner.partition("/")
        own = pipeline.node(its_node).inputs.get(name, ()) if its_pipeline == pipeline.name else ()
        # Other inputs may have given the same bytes once, and what they gave is used again.
        return own if len(own) == len(edges) else [None] * len(edges)

    return renamed(lineage, f"{pipeline.name}/{node.name}", namer)


def named_by_refs(
    nodes: Mapping[str, Mapping[str, Sequence[str]]], root: str, lineage: Mapping[str, Any]
) -> dict[str, Any]:
    """The lineage in the names of the nodes that point to its artifacts now.

    `nodes`: pipeline -> key -> its nodes with the artifact of that key. `root` is the full name of the lineage's node.
    """

    def namer(owner: str, _name: str, edges: Sequence[Mapping[str, Any]]) -> Sequence[str | None]:
        known = nodes.get(owner.partition("/")[0], {})
        taken: list[str | None] = []
        for edge in edges:
            there = known.get(edge["key"], ())
            # Two datasets of the same contents are one artifact and two nodes.
            free = [node for node in there if node not in taken] or there
            taken.append(edge["node"] if edge["node"] in free else free[0] if free else None)
        return taken

    return renamed(lineage, root, namer)


def renamed(lineage: Mapping[str, Any], root: str, namer: Namer) -> dict[str, Any]:
    """The lineage in other names, from its own node, `root`, on.

    `computed_by` is the name that an artifact's own lineage has, where it differs. Where the namer has none, an
    artifact keeps its name, and so does what a pinned input was made from: the graph may ask for something else now.
    """
    before = lineage["ancestors"]
    names = {lineage["key"]: root}
    done: dict[str, dict[str, Any]] = {}
    pending = [lineage]
    kept: set[str] = set()
    while pending:
        item = pending.pop(0)
        if item["key"] in done:
            continue
        owner, inputs = names[item["key"]], {}
        for name, edges in item["inputs"].items():
            own = [None] * len(edges) if item["key"] in kept else namer(owner, name, edges)
            inputs[name] = [
                {**edge, "node": given or edge["node"]} for edge, given in zip(edges, own, strict=True)
            ]
            for edge, given in zip(inputs[name], own, strict=True):
                if (upstream := before.get(edge["key"])) is not None:
                    is_asset = edge["node"].startswith(ASSET_SCHEME)
                    name_there = full_name(owner, edge["node"]) if given or is_asset else upstream["node"]
                    names.setdefault(edge["key"], name_there)
                    pending.append(upstream)
                    if "pinned" in edge or item["key"] in kept:
                        kept.add(edge["key"])
        done[item["key"]] = {**_called(item, owner), "inputs": inputs}
    made = done.pop(lineage["key"])
    return {**made, "ancestors": {key: done.get(key, item) for key, item in before.items()}}


def full_name(owner: str, node: str) -> str:
    """`pipeline/node` of an input of `owner`, which is a full name itself."""
    if node.startswith(ASSET_SCHEME):
        return node.removeprefix(ASSET_SCHEME)
    return f"{owner.partition('/')[0]}/{node}"


def nodes_by_key(refs: Iterable[tuple[str, str, Any]]) -> dict[str, dict[str, list[str]]]:
    """Pipeline -> key -> nodes, of (pipeline, node, ref)."""
    found: dict[str, dict[str, list[str]]] = {}
    for pipeline, node, ref in refs:
        found.setdefault(pipeline, {}).setdefault(ref.key, []).append(node)
    return found


def _called(item: Mapping[str, Any], name: str) -> dict[str, Any]:
    computed_by = item.get("computed_by", item["node"])
    plain = {field: value for field, value in item.items() if field != "computed_by"}
    return {**plain, "node": name, **({"computed_by": computed_by} if computed_by != name else {})}
