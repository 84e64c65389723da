"""The evaluated models of a pipeline beside each other, a line each."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.pipelines.report.one_evaluation import Evaluated
from tunemill.pipelines.run.evaluated import evaluated_name
from tunemill.pipelines.run.finished import Finished
from tunemill.stages.artifacts import EvaluationReport
from tunemill.stages.errors import UserError


@dataclass(frozen=True)
class Scored:
    """The evaluation of a model: its name in tables, and its data folder."""

    model: str
    name: str
    folder: Path


def comparison_lines(pipeline: Pipeline, finished: Sequence[Finished]) -> Iterator[str]:
    """`trained against base: exact_match 0.9 against 0.1 over 200 rows: better by ...`, for each kind of evaluation.

    Only of evaluations of which this run has computed any.
    """
    there = [(pipeline.node(item.node), item.published.data) for item in finished if item.published]
    computed = {item.node for item in finished if item.state == "computed"}
    for names, suite in suites(there):
        if computed & names:
            yield from suite_lines(suite)


def suites(there: Sequence[tuple[Node, Path]]) -> list[tuple[set[str], list[Scored]]]:
    """The evaluations among nodes and their data folders that are of the same kind, with the names of their nodes."""
    found: defaultdict[str, tuple[set[str], list[Scored]]] = defaultdict(lambda: (set(), []))
    for node, folder in there:
        if issubclass(node.stage.output, EvaluationReport) and node.about:
            names, suite = found[node.name.removesuffix(f"_of_{node.about}")]
            names.add(node.name)
            suite.append(Scored(node.about, evaluated_name(node), folder))
    return list(found.values())


def suite_lines(suite: Sequence[Scored]) -> Iterator[str]:
    """The first model that is evaluated beside the base is compared with it, and all others with that one.

    That is what training gained, and what merging and quantizing lost. Nothing of those without a row in common.
    """
    if len(suite) < 2:
        return
    base, tuned, *others = suite
    for before, after in [(base, tuned), *zip(repeat(tuned), others, strict=False)]:
        yield from _line(before, after)


def _line(before: Scored, after: Scored) -> Iterator[str]:
    # They compute with numbers, which only a run that computed something pays for.
    from tunemill.pipelines.report.difference import NothingComparableError, compare_evaluations

    one, other = (Evaluated(side.model, side.folder, None) for side in (before, after))
    try:
        main = compare_evaluations(one, other).main
    except (NothingComparableError, UserError):
        return
    yield f"{after.model} against {before.name}: {main.metric} {main.words}"
