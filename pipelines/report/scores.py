"""The scores of a pipeline's models side by side, and what changed since the time before."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunemill.pipelines.graph.nodes import Node
from tunemill.pipelines.run.evaluated import evaluated_name
from tunemill.pipelines.run.excerpt import Excerpt
from tunemill.pipelines.run.figures import figure, with_interval
from tunemill.pipelines.run.look import Look
from tunemill.stages.artifacts import EvaluationReport

# Reasons that only repeat what happened further up, or nothing.
NO_NEWS = ("input ", "waits on ", "never computed")
# Figures that count, and stand last.
COUNTS = frozenset({"rows"})


@dataclass(frozen=True)
class Table:
    """Headings, and rows of cells."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def evaluations(look: Look) -> list[Node]:
    """The nodes that evaluate and have an artifact."""
    return [
        node
        for node in look.pipeline.nodes
        if issubclass(node.stage.output, EvaluationReport) and node.name in look.artifacts
    ]


def score_names(node: Node, metrics: Mapping[str, Any], excerpt: Excerpt | None) -> list[str]:
    """The metrics of an evaluation that a comparison shows, by which answers are right or wrong first."""
    assert issubclass(node.stage.output, EvaluationReport)
    wanted = node.stage.output.columns or tuple(metrics)
    first = "" if excerpt is None else excerpt.judged_by
    names = [name for name in wanted if metrics.get(name) is not None]
    return sorted(names, key=lambda name: (name != first, name in COUNTS))


def score_table(look: Look) -> Table:
    """A line for each model, the score that tells right from wrong first, and what it was before."""
    scored: dict[str, dict[str, str]] = {}
    names: dict[str, None] = {}
    for node in evaluations(look):
        metrics, excerpt = look.artifacts[node.name].manifest["metrics"], look.excerpts.nodes[node.name]
        shown = score_names(node, metrics, excerpt)
        names |= dict.fromkeys(shown)
        cells = {name: figure(with_interval(metrics[name], excerpt.intervals.get(name))) for name in shown}
        before = look.before(node.name)
        if shown and before.get(shown[0]) is not None:
            cells[f"{shown[0]} before"] = figure(before[shown[0]])
        item = look.plan.get(node.name)
        model = evaluated_name(node) + ("" if item is None or item.state != "run" else " (from before)")
        scored[model] = {**cells, **scored.get(model, {})}
    ordered = sorted(names, key=lambda name: name in COUNTS)
    there = {name for cells in scored.values() for name in cells}
    columns = [name for one in ordered for name in (one, f"{one} before") if name in there]
    rows = [[model, *(cells.get(name, "") for name in columns)] for model, cells in scored.items()]
    return Table(["model", *columns], rows)


def changed_settings(look: Look) -> Iterator[tuple[str, list[str]]]:
    """The nodes that the last run computed because of settings, data or versions of their own, and which."""
    last = look.last
    for name, done in ({} if last is None else last.nodes).items():
        news = [one for one in done.reasons if not one.startswith(NO_NEWS)]
        if done.state == "computed" and news:
            yield name, news


def moved_scores(look: Look) -> Iterator[tuple[str, str, str, str]]:
    """Scores that are shown otherwise than before: the score, of which model, what it was, what it is."""
    for node in evaluations(look):
        before, now = look.before(node.name), look.artifacts[node.name].manifest["metrics"]
        for name in score_names(node, now, look.excerpts.nodes[node.name]):
            old, new = figure(before.get(name)), figure(now[name])
            if before.get(name) is not None and old != new:
                yield name, evaluated_name(node), old, new
