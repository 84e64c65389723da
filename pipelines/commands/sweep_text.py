"""What became of a sweep, for a terminal."""

import shlex
from collections.abc import Sequence

from tunemill.pipelines.commands.listing import listing, show
from tunemill.pipelines.commands.sweep_best import Best
from tunemill.pipelines.graph.sweep import Sweep
from tunemill.pipelines.run.figures import count_of, figure, with_interval
from tunemill.pipelines.run.sweep import PointRun

COLOURS = {
    "finished": "green",
    "stopped": "yellow",
    "failed": "red",
    "not finished": "red",
    "left out": "dim",
}


def show_outcome(sweep: Sweep, points: Sequence[PointRun], best: Best | None) -> None:
    """A line for each point, the best ones first; then the best, and how sure that is."""
    metric = None if best is None else best.metric
    show(
        listing(
            ("point", *keys_of(points), "state", metric or "figure", "why"), rows_of(points, best), COLOURS
        )
    )
    show()
    for line in words_of(sweep, points, best):
        show(line)


def keys_of(points: Sequence[PointRun]) -> list[str]:
    """The keys that any point sets, in the order of the grid."""
    return list(
        dict.fromkeys(key for one in points if one.pipeline.point for key in one.pipeline.point.values)
    )


def rows_of(points: Sequence[PointRun], best: Best | None) -> list[tuple[str, ...]]:
    """The cells of each point: those that are judged first, the best on top, then the others as the grid has them."""
    judged = {} if best is None else {one.point.name: one for one in best.ranked}
    places = {name: place for place, name in enumerate(judged)}
    ordered = sorted(points, key=lambda point: places.get(point.name, len(places)))
    rows = []
    for point in ordered:
        values = point.pipeline.point.shown if point.pipeline.point else {}
        one = judged.get(point.name)
        value = "" if one is None else figure(with_interval(one.value, one.interval))
        rows.append(
            (point.name, *(values.get(key, "") for key in keys_of(points)), point.state, value, point.why)
        )
    return rows


def words_of(sweep: Sweep, points: Sequence[PointRun], best: Best | None) -> list[str]:
    """Which point is the best, and what to do next."""
    finished = sum(point.state == "finished" for point in points)
    lines = [f"{finished} of {count_of(len(points), 'point')} finished"]
    if best is None:
        lines.append("no finished point has a figure to judge it by: there is no best one")
        return lines
    first = best.ranked[0]
    if best.better == "neither":
        lines.append(f"of {best.metric} neither more nor less is better: there is no best one")
        return lines
    lines.append(f"the best by {best.metric} of {first.node}: {first.point.name}, {figure(first.value)}")
    if same := [one.point.name for one in best.ranked[1:] if one.value == first.value]:
        have = "has" if len(same) == 1 else "have"
        lines[-1] += f"; {' and '.join(same)} {have} the same, and stand behind it in the grid"
    if best.words is not None:
        lines.append(f"beside the second, {best.ranked[1].point.name}: {best.metric} {best.words}")
    elif len(best.ranked) > 1:
        second = best.ranked[1]
        told = f"{second.point.name} has {figure(second.value)}"
        lines.append(
            f"{told}; whether that is more than noise is not known: {first.node} has no rows to compare"
        )
    command = shlex.join(["tunemill", "run", str(sweep.document.path), "--point", first.point.name])
    lines.append(f"its pipeline is {first.point.pipeline.name}: {command}")
    return lines
