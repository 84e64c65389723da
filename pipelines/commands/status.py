"""`tunemill status`: what every node points to now, and whether that is what its YAML asks for."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from tunemill.pipelines.commands.listing import CHECK_COLOURS, GATE_COLOURS, listing, show
from tunemill.pipelines.commands.options import add_command, add_json, add_state, print_json, store_of
from tunemill.resources.canonical import SHORT
from tunemill.resources.errors import StoreError
from tunemill.resources.index import Summary, summaries
from tunemill.resources.origins import read_origin
from tunemill.resources.pins import Pin
from tunemill.resources.refs import Ref
from tunemill.resources.store import Absent, Store
from tunemill.stages.choices import nearest

# Beside what `graph/standing.py` says.
PRESENT, MISSING, GONE = "present", "missing or damaged", "not in the YAML"
COLOURS = {
    "current": "green",
    "pinned": "magenta",
    "stale": "yellow",
    MISSING: "red",
    GONE: "dim",
    "never computed": "dim",
}
NOTHING: dict[str, Any] = {
    "stage": None, "key": None, "digest": None, "path": None, "started": None, "seconds": None, "metrics": {},
    "pin": None, "why": "",
}  # fmt: skip


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "status", status, text)
    parser.add_argument("names", nargs="*", metavar="PIPELINE", help="names of pipelines (default: all)")
    add_state(parser)
    add_json(parser)


def status(options: argparse.Namespace) -> int:
    """Print what every node points to and whether its YAML asks for that; 1 if one has no bytes any more."""
    store = store_of(options, looks=True)
    pins = store.pins.all()
    refs = _places(store, pins)
    _check_names(options.names, sorted({pipeline for pipeline, _, _ in refs}), store)
    refs = [item for item in refs if not options.names or item[0] in options.names]
    found = summaries(store, {(ref.stage, ref.key) for _, _, ref in refs})
    nodes = [
        {
            "pipeline": pipeline,
            "node": node,
            **_facts(store, ref, found[ref.stage, ref.key], pins.get(f"{pipeline}/{node}")),
        }
        for pipeline, node, ref in refs
    ]
    problems: dict[str, str] = {}
    gates: list[dict[str, Any]] = []
    for pipeline in dict.fromkeys(node["pipeline"] for node in nodes):
        if problem := _compare(store, pipeline, nodes, gates):
            problems[pipeline] = problem
    checks = _checks([node for node in nodes if node["pipeline"] not in problems])
    if options.json:
        told = {"problems": problems, "gates": gates, "checks": checks}
        print_json({"state": str(store.root), "nodes": nodes, **told})
    else:
        _print(store, nodes, problems, gates)
        _print_checks(checks)
    return 1 if any(node["state"] == MISSING for node in nodes) else 0


def _check_names(names: Sequence[str], known: Sequence[str], store: Store) -> None:
    """Raises StoreError for the name of a pipeline that has never run here."""
    for name in names:
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known) or 'none'}"
            raise StoreError(f"{name}: no pipeline of this name has run in {store.root}; {hint}")


def _compare(
    store: Store, pipeline: str, nodes: list[dict[str, Any]], gates: list[dict[str, Any]]
) -> str | None:
    """Fill in what the YAML says of a pipeline's nodes, and add those that have never run; or say why it cannot.

    How its gates stand is added too.
    """
    file = read_origin(store.root, pipeline)
    if file is None:
        return "run it once more to see what is stale: older versions did not note which YAML it is"
    # Configs are only imported where there is something to compare.
    from tunemill.pipelines.graph.standing import standing

    stands = standing(file, pipeline, store)
    if stands.problem is not None:
        return stands.problem
    gates += [{"pipeline": pipeline, **one.as_json()} for one in stands.gates]
    own = [node for node in nodes if node["pipeline"] == pipeline]
    for node in own:
        state, why = stands.nodes.get(node["node"], (GONE, f"{file.name} has no such node"))
        if state == GONE and node["why"]:
            why = f"{why}; {node['why']}; `tunemill unpin {pipeline}/{node['node']}` takes the pin away"
        if node["state"] != MISSING:
            node |= {"state": state, "why": why}
    known = {node["node"] for node in own}
    nodes += [
        {**NOTHING, "pipeline": pipeline, "node": name, "state": state}
        for name, (state, _) in stands.nodes.items()
        if name not in known
    ]
    nodes.sort(key=lambda node: node["pipeline"])
    return None


def _checks(nodes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What failed of the checks of everything that is there, in pipelines whose YAML can be read."""
    if not nodes:
        return []
    # Declarations are only imported where they were to be compared with YAMLs.
    from tunemill.pipelines.graph.result_checks import checks_of, failed
    from tunemill.stages.registry import STAGES

    stages = {stage.name: stage for stage in STAGES}
    return [
        {"pipeline": node["pipeline"], **one.as_json()}
        for node in nodes
        if node["stage"] in stages
        for one in failed(checks_of(node["node"], stages[node["stage"]], node["metrics"]))
    ]


def _print_checks(checks: Sequence[Mapping[str, Any]]) -> None:
    if checks:
        show()
        columns = ("pipeline", "node", "check", "state", "seen", "what to do")
        fields = ("pipeline", "node", "check", "severity", "text", "advice")
        show(listing(columns, [[one[name] for name in fields] for one in checks], CHECK_COLOURS))


def _print(
    store: Store, nodes: list[dict[str, Any]], problems: dict[str, str], gates: list[dict[str, Any]]
) -> None:
    columns = ("pipeline", "node", "state", "started", "seconds", "digest", "why")
    rows = [
        [*(node[column] for column in columns[:-2]), (node["digest"] or "")[:SHORT], node["why"]]
        for node in nodes
    ]
    show(listing(columns, rows, COLOURS) if rows else f"{store.root}: nothing has been computed here yet")
    if gates:
        show()
        told = [(gate["pipeline"], gate["gate"], gate["state"], gate["text"]) for gate in gates]
        show(listing(("pipeline", "gate", "state", "why"), told, GATE_COLOURS))
    for pipeline, problem in problems.items():
        show(f"{pipeline}: not compared with its YAML: {problem}")


def _places(store: Store, pins: Mapping[str, Pin]) -> list[tuple[str, str, Ref]]:
    """What every node points to: what it is pinned to, or else what it had last."""
    refs = {(pipeline, node): ref for pipeline, node, ref in store.refs.all()}
    for name, pin in pins.items():
        pipeline, _, node = name.partition("/")
        refs[pipeline, node] = pin.ref
    return [(pipeline, node, ref) for (pipeline, node), ref in sorted(refs.items())]


def _facts(store: Store, ref: Ref, found: Summary | Absent, pin: Pin | None) -> dict[str, Any]:
    facts = found.facts if isinstance(found, Summary) else {}
    return {
        "stage": ref.stage,
        "state": PRESENT if isinstance(found, Summary) else MISSING,
        "key": ref.key,
        "digest": ref.digest,
        "path": str(store.folder(ref.stage, ref.key) / "data")
        if isinstance(found, Summary) and not found.elsewhere
        else None,
        "started": facts.get("started"),
        "seconds": facts.get("seconds"),
        "metrics": facts.get("metrics") or {},
        "pin": None if pin is None else pin.as_json(),
        "why": "" if pin is None else str(pin),
    }
