"""Tables for people: plan, run, what of a run is shown."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunemill.pipelines.commands.listing import Listing, listing, show
from tunemill.pipelines.graph.nodes import Pipeline
from tunemill.pipelines.graph.plan import Planned
from tunemill.pipelines.graph.without_pins import Unpinned
from tunemill.pipelines.run.evaluated import evaluated_name, intervals_of
from tunemill.pipelines.run.figures import count_of, with_interval
from tunemill.pipelines.run.finished import Finished
from tunemill.resources.canonical import SHORT
from tunemill.stages.artifacts import EvaluationReport
from tunemill.stages.declaration import Stage

if TYPE_CHECKING:
    from rich.text import Text

COLOURS = {
    "cached": "green",
    "pinned": "magenta",
    "computed": "cyan",
    "run": "yellow",
    "failed": "red",
    "skipped": "dim",
    "left alone": "dim",
}
# The table of a stage that shows whole rows.
EXAMPLES = "Examples"
PLOT_LINES, PLOT_WIDTH = 12, 40
# The figure that stands last: how many rows were evaluated.
ROWS = "rows"
LONGEST_WHY = 120


def plan_table(plan: Sequence[Planned], unpinned: Mapping[str, Unpinned]) -> Listing:
    """Every node, whether it runs, why, what would become of it without pins, and how long it took last time."""
    rows = [
        (
            item.node.name,
            item.state,
            "; ".join([*item.why, *_without_pin(item, unpinned.get(item.node.name))]),
            f"{item.last_seconds:.1f} s" if item.last_seconds is not None else "",
        )
        for item in plan
    ]
    return listing(("node", "state", "why", "last time"), rows, COLOURS)


def _without_pin(item: Planned, unpinned: Unpinned | None) -> list[str]:
    """What would become of a node; of one that is only left alone nothing where nothing would."""
    said = unpinned is not None and (item.pin is not None or unpinned.state != "same")
    return [str(unpinned)] if said else []


def show_run(finished: Sequence[Finished], *, verbose: bool) -> None:
    """What became of the nodes."""
    if table := run_table(finished, verbose=verbose):
        show(table)
    if not verbose and (line := cached_line(finished)):
        show(line)


def run_table(finished: Sequence[Finished], *, verbose: bool) -> Listing | None:
    """What ran and why; of what failed the first line. What was cached only if `verbose`; None if nothing is left."""
    rows = [
        (
            item.node,
            item.state,
            f"{item.seconds:.1f}",
            _first_line(item.message) if item.message else "; ".join(item.reasons),
            item.published.digest[:SHORT] if item.published else "",
        )
        for item in finished
        if verbose or item.state != "cached"
    ]
    return listing(("node", "state", "seconds", "why", "digest"), rows, COLOURS) if rows else None


def cached_line(finished: Sequence[Finished]) -> str | None:
    """How many nodes were cached, in words."""
    cached = sum(item.state == "cached" for item in finished)
    if not cached:
        return None
    return f"{count_of(cached, 'node')} cached" if cached < len(finished) else f"all {cached} nodes cached"


def _first_line(text: str) -> str:
    """A long message has been said in full where it came up."""
    line = text.partition("\n")[0]
    return line if len(line) <= LONGEST_WHY else f"{line[: LONGEST_WHY - 1]}…"


def evaluation_table(pipeline: Pipeline, finished: Sequence[Finished]) -> Listing | None:
    """The evaluations of a run side by side, None if there are none."""
    scored: dict[str, Mapping[str, Any]] = {}
    columns: dict[str, None] = {}
    for item in finished:
        node = pipeline.node(item.node)
        if issubclass(node.stage.output, EvaluationReport) and item.published:
            metrics = item.published.manifest["metrics"]
            sure = intervals_of(node.stage, item.published.data)
            shown = {name: with_interval(value, sure.get(name)) for name, value in metrics.items()}
            scored[evaluated_name(node)] = {**shown, **scored.get(evaluated_name(node), {})}
            columns |= dict.fromkeys(node.stage.output.columns or metrics)
    named = [name for name in columns if any(name in metrics for metrics in scored.values())]
    named.sort(key=lambda name: name == ROWS)
    rows = [(model, *map(metrics.get, named)) for model, metrics in scored.items()]
    return listing(("model", *named), rows) if rows else None


def data_tables(
    item: Finished, stage: Stage, *, show_examples: bool
) -> Iterator["tuple[str, Listing | Text]"]:
    """Figures, tables and plots of a node that prepares data, each with a title.

    Rows that are shown token by token are not shown as a table too.
    """
    if item.published is None or stage.shown_as == "nothing":
        return
    show_examples = show_examples and stage.shows is None
    manifest = item.published.manifest
    figures = [(name, value) for name, value in manifest["metrics"].items() if value is not None]
    yield item.node, listing(["figure", "value"], figures)
    for table in manifest["tables"]:
        if table["title"] != EXAMPLES or show_examples:
            yield f"{item.node}: {table['title']}", listing(table["columns"], table["rows"])
    for plot in manifest["plots"]:
        if plot["bars"]:
            yield f"{item.node}: {plot['title']} ({plot['y_label']} by {plot['x_label']})", bar_plot(plot)


def bar_plot(plot: Mapping[str, Any]) -> "Text":
    """A histogram as lines of blocks, neighbouring bars put together so that at most a dozen are left."""
    from rich.text import Text

    together = max(1, -(-len(plot["x"]) // PLOT_LINES))
    starts = plot["x"][::together]
    heights = [sum(plot["y"][first : first + together]) for first in range(0, len(plot["y"]), together)]
    tallest = max([*heights, 1])
    lines = [
        f"{start:>10.0f} {'█' * round(PLOT_WIDTH * height / tallest):<{PLOT_WIDTH}} {height:.0f}"
        for start, height in zip(starts, heights, strict=True)
    ]
    return Text("\n".join(lines))


def is_evaluation(pipeline: Pipeline, item: Finished) -> bool:
    """Whether the node's result is a report and not a thing to take away."""
    return issubclass(pipeline.node(item.node).stage.output, EvaluationReport)
