"""The rows on which a model differs from the one before it, or from the one that training began with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tunemill.pipelines.graph.lineage import lineage_in
from tunemill.pipelines.report.comparisons import suite_lines, suites
from tunemill.pipelines.report.diff_rows import ShownRow, headline, kinds, shown_row
from tunemill.pipelines.report.diff_words import differing_words
from tunemill.pipelines.report.difference import NothingComparableError, compare_evaluations
from tunemill.pipelines.report.one_evaluation import Evaluated
from tunemill.pipelines.report.scores import evaluations
from tunemill.pipelines.run.evaluated import evaluated_name
from tunemill.pipelines.run.look import Look
from tunemill.resources.errors import StoreError
from tunemill.resources.protocols import LINEAGE_FILE
from tunemill.resources.store import Published, Store
from tunemill.stages.errors import UserError

SHOWN = 15
# Texts that are longer are compared as far as this.
LONGEST_TEXT = 1500
Piece = tuple[str, bool]


@dataclass(frozen=True)
class Sides:
    """A row of both models. `differing`: name, and the pieces of either text, each with whether the other has it."""

    title: str
    values: tuple[str, str]
    shared: Sequence[tuple[str, str]]
    differing: Sequence[tuple[str, Sequence[Piece], Sequence[Piece]]]


@dataclass(frozen=True)
class Kind:
    """Rows that got better, or worse."""

    title: str
    rows: Sequence[Sides]


@dataclass(frozen=True)
class Moved:
    """Two evaluations, and the rows that moved between them."""

    title: str
    lines: Sequence[str]
    one: str
    other: str
    metric: str
    kinds: Sequence[Kind]


def moved_rows(look: Look, store: Store) -> Moved | None:
    """Of the last model that is evaluated, against the one before; where there is none, against the first model."""
    nodes = [node for node in evaluations(look) if not look.artifacts[node.name].elsewhere]
    for node in reversed(nodes):
        before, name = look.artifact_before(node.name, store), evaluated_name(node)
        now = look.artifacts[node.name]
        found = None if before is None else _moved(_named(f"{name} before", before), _named(name, now))
        if found is not None:
            return found
    if len(nodes) < 2:
        return None
    first, last = nodes[0], nodes[-1]
    return _moved(*(_named(evaluated_name(one), look.artifacts[one.name]) for one in (first, last)))


def compared_lines(look: Look) -> Iterator[str]:
    """Every model that is evaluated beside the one before it, in a sentence."""
    here = [(node, look.artifacts[node.name]) for node in evaluations(look)]
    for _, suite in suites([(node, found.data) for node, found in here if not found.elsewhere]):
        yield from suite_lines(suite)


def _named(name: str, published: Published) -> Evaluated:
    try:
        lineage = lineage_in(published.data / LINEAGE_FILE)
    except StoreError:
        lineage = None
    return Evaluated(name, published.data, lineage)


def _moved(one: Evaluated, other: Evaluated) -> Moved | None:
    try:
        found = compare_evaluations(one, other)
    except (NothingComparableError, UserError, OSError):
        return None
    title, *lines = headline(found)
    lines += [f"{item.metric}: {item.words}" for item in found.metrics]
    shown = [
        Kind(
            words if len(rows) <= SHOWN else f"{words}; the first {SHOWN}",
            [_sides(shown_row(pair, found.main)) for pair in rows[:SHOWN]],
        )
        for words, rows in kinds(found)
        if rows
    ]
    return Moved(title, lines, one.name, other.name, found.main.metric, shown)


def _sides(row: ShownRow) -> Sides:
    differing = []
    for name, ours, theirs in row.differing:
        words = list(differing_words(ours[:LONGEST_TEXT], theirs[:LONGEST_TEXT]))
        left = [(text, text == other) for text, other in words if text]
        right = [(other, text == other) for text, other in words if other]
        differing.append((name, left, right))
    return Sides(row.title, row.values, row.shared, differing)
