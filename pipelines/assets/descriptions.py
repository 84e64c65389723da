"""What the page of a node says when it is opened: what stands, why it is to be computed, scores, curves, answers.

Dagster renders an asset's description open, with tables and pictures, and its first words in the graph.
"""

from collections.abc import Iterator
from typing import Any

from tunemill.pipelines.assets.markdown import markdown_table, page_of, plain
from tunemill.pipelines.graph.nodes import Node
from tunemill.pipelines.report.scores import score_names
from tunemill.pipelines.run.evaluated import evaluated_name
from tunemill.pipelines.run.excerpt import Excerpt, answer_rows
from tunemill.pipelines.run.figures import figure, with_interval
from tunemill.pipelines.run.look import Look
from tunemill.pipelines.run.pictures import picture
from tunemill.stages.artifacts import EvaluationReport

# The figures that say most of an artifact, if it has them; the first of these stand in the graph.
TELLING = (
    "last_eval_loss", "last_loss", "leaked_rows", "top1_agreement", "sequences", "rows", "trained_tokens", "tokens",
    "steps", "parameters", "vocabulary", "bits_per_weight", "bytes",
)  # fmt: skip
SHOWN = 3


def description(look: Look, node: Node) -> str:
    """Markdown of what stands of a node."""
    parts = [state_words(look, node), headline(look, node)]
    excerpt = look.excerpts.nodes.get(node.name)
    if excerpt is not None and issubclass(node.stage.output, EvaluationReport):
        parts += [scores(look, node, excerpt), answers(excerpt)]
    if excerpt is not None and excerpt.curve:
        parts.append(picture(excerpt.curve, "loss"))
    # Last: what a stage does is always the same.
    return page_of((*parts, node.stage.description))


def state_words(look: Look, node: Node) -> str:
    """What the next run will do with a node, and why; nothing where it is up to date."""
    item = look.plan.get(node.name)
    if item is None or item.left_alone:
        return "" if item is None else plain("; ".join(item.why))
    if item.pin is not None:
        return f"**{plain(str(item.pin).capitalize())}**"
    if item.state == "run":
        causes = look.causes(node.name)
        if node.name in causes:
            never = node.name not in look.artifacts
            return "**Not computed yet.**" if never else f"**Will be computed:** {reasons(item.reasons)}"
        named = "; ".join(f"{name} ({reasons(why)})" for name, why in causes.items())
        behind = f"behind {named}" if named else "; ".join(map(plain, item.reasons))
        return f"**Will be computed as well**, {behind}"
    if item.cached is not None and item.cached.elsewhere:
        return "In the team's store; a run that needs its files brings them."
    return "" if item.ref_is_current else "The store has what the YAML asks for; the next run points to it."


def reasons(why: Any) -> str:
    """Reasons in the words of `plan`."""
    return "; ".join(f"`{' '.join(str(one).replace('`', chr(39)).split())}`" for one in why)


def headline(look: Look, node: Node) -> str:
    """The figures that say most, in one line."""
    artifact = look.artifacts.get(node.name)
    if artifact is None:
        return ""
    metrics, excerpt = artifact.manifest["metrics"], look.excerpts.nodes.get(node.name)
    if issubclass(node.stage.output, EvaluationReport):
        sure = {} if excerpt is None else excerpt.intervals
        names = [name for name in score_names(node, metrics, excerpt) if name != "rows"][:2]
        return plain(
            ", ".join(f"{name} {figure(with_interval(metrics[name], sure.get(name)))}" for name in names)
        )
    there = [name for name in TELLING if metrics.get(name) is not None][:SHOWN]
    return plain(", ".join(_said(name, metrics[name]) for name in there))


def _said(name: str, value: Any) -> str:
    words = name.replace("_", " ")
    return f"{value:,} {words}" if isinstance(value, int) else f"{words} {figure(value)}"


def scores(look: Look, node: Node, excerpt: Excerpt) -> str:
    """Every score with its interval, and what it was before."""
    metrics, before = look.artifacts[node.name].manifest["metrics"], look.before(node.name)
    rows = [
        [plain(name), *_interval_cells(metrics[name], excerpt.intervals.get(name)), figure(before.get(name))]
        for name in score_names(node, metrics, excerpt)
    ]
    columns = ["score", evaluated_name(node), "interval", "before"]
    return markdown_table(columns if before else columns[:-1], rows if before else [row[:-1] for row in rows])


def _interval_cells(value: Any, sure: Any) -> Iterator[str]:
    yield f"**{figure(value)}**"
    yield "" if sure is None else f"{sure['low']:.3g} to {sure['high']:.3g} ({sure['confidence']:.0%})"


def answers(excerpt: Excerpt) -> str:
    """Some right and some wrong answers."""
    rows = list(answer_rows(excerpt))
    names = list(dict.fromkeys(name for _, texts in rows for name in texts))
    if not rows:
        return ""
    cells = [
        [verdict, *(plain(texts.get(name, "")) or "(nothing)" for name in names)] for verdict, texts in rows
    ]
    return markdown_table([plain(excerpt.judged_by), *map(plain, names)], cells)
