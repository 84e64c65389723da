"""A sweep before it runs: its points, and what they share."""

from collections.abc import Sequence
from typing import Any

from tunemill.pipelines.commands.listing import Listing, listing, show
from tunemill.pipelines.commands.options import lines_of_notes
from tunemill.pipelines.commands.tables import COLOURS
from tunemill.pipelines.graph.sweep import Sweep
from tunemill.pipelines.graph.sweep_plan import PlannedPoint, SharedNode, shared_nodes
from tunemill.pipelines.run.estimate import estimate
from tunemill.pipelines.run.figures import count_of

LEFT_OUT = "left out"


def show_sweep_plan(sweep: Sweep, points: Sequence[PlannedPoint]) -> None:
    """What would run: every node of all points, the shared ones once; the points; how much that is."""
    for line in lines_of_notes(sweep.notes, sweep.document.path):
        show(line)
    nodes = shared_nodes(points)
    show(_nodes_table(nodes, sum(point.left_out is None for point in points)))
    show()
    show(_points_table(points))
    show(f"\n{words_of_plan(points, nodes)}")


def sweep_plan_json(sweep: Sweep, points: Sequence[PlannedPoint]) -> dict[str, Any]:
    """The one document of --json."""
    nodes = shared_nodes(points)
    return {
        "sweep": sweep.name,
        "points": [
            {
                "point": point.pipeline.point.name,
                "pipeline": point.pipeline.name,
                "values": dict(point.pipeline.point.values),
                "left_out": point.left_out,
                "nodes": [item.as_json() for item in point.plan],
            }
            for point in points
            if point.pipeline.point is not None
        ],
        "nodes": [
            {"node": one.item.node.name, "state": one.item.state, "points": list(one.points)} for one in nodes
        ],
        "to_run": sum(one.item.state == "run" for one in nodes),
        "estimated_seconds": estimate([one.item for one in nodes]).seconds,
        "notes": [note.as_json() for note in sweep.notes],
    }


def words_of_plan(points: Sequence[PlannedPoint], nodes: Sequence[SharedNode]) -> str:
    """`8 points of 16 nodes; 9 are the same in all of them, so 65 nodes in place of 128. 65 to run; ...`."""
    run = [point for point in points if point.left_out is None]
    counts = [sum(item.state != "left alone" for item in point.plan) for point in run]
    sizes = sorted(set(counts))
    size = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    common = sum(len(one.points) == len(run) for one in nodes)
    to_run = [one.item for one in nodes if one.item.state == "run"]
    said = (
        f"{count_of(len(run), 'point')} of {size} nodes; {common} are the same in all of them, so there are "
        f"{len(nodes)} nodes in place of {sum(counts)}"
    )
    if len(run) < len(points):
        said += f"; {count_of(len(points) - len(run), 'point')} left out"
    return f"{said}\n{len(to_run)} to run; {estimate(to_run)}" if to_run else f"{said}\nnothing to run"


def _nodes_table(nodes: Sequence[SharedNode], points: int) -> Listing:
    """Nodes by name: how many points share one, how many there are, and how many of these run."""
    by_name: dict[str, list[SharedNode]] = {}
    for one in nodes:
        by_name.setdefault(one.item.node.name, []).append(one)
    rows = []
    for name, several in by_name.items():
        to_run = sum(one.item.state == "run" for one in several)
        state = "run" if to_run else several[0].item.state
        shared = max(len(one.points) for one in several)
        words = f"all {points}" if shared == points else f"up to {shared}" if shared > 1 else "its own"
        why = "; ".join(dict.fromkeys("; ".join(one.item.why) for one in several if one.item.state == state))
        rows.append((name, state, f"{to_run} of {len(several)}" if to_run else "", words, why))
    return listing(("node", "state", "to run", "points that share it", "why"), rows, COLOURS)


def _points_table(points: Sequence[PlannedPoint]) -> Listing:
    keys = list(dict.fromkeys(key for point in points for key in _values(point)))
    rows = [
        (
            point.pipeline.point.name if point.pipeline.point else "",
            *(_values(point).get(key, "") for key in keys),
            f"{LEFT_OUT}: {point.left_out}" if point.left_out else point.to_run,
        )
        for point in points
    ]
    return listing(("point", *keys, "nodes not there yet"), rows)


def _values(point: PlannedPoint) -> dict[str, Any]:
    return {} if point.pipeline.point is None else point.pipeline.point.shown
