"""The evaluated models of a pipeline beside each other, a line each."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import repeat

from tunemill.pipelines.graph.nodes import Pipeline
from tunemill.pipelines.run.evaluated import evaluated_name
from tunemill.pipelines.run.finished import Finished
from tunemill.stages.artifacts import EvaluationReport

Scored = tuple[str, Finished]


def comparison_lines(pipeline: Pipeline, finished: Sequence[Finished]) -> Iterator[str]:
    """`trained against base: exact_match 0.9 against 0.1 over 200 rows: better by ...`, for each kind of evaluation.

    The first model that is evaluated beside the base is compared with it, and all others with that one: what training
    gained, and what merging and quantizing lost. Only of evaluations of which this run has computed any.
    """
    suites: defaultdict[str, list[Scored]] = defaultdict(list)
    for item in finished:
        node = pipeline.node(item.node)
        if issubclass(node.stage.output, EvaluationReport) and node.about and item.published:
            suites[node.name.removesuffix(f"_of_{node.about}")].append((node.about, item))
    for suite in suites.values():
        if len(suite) > 1 and any(item.state == "computed" for _, item in suite):
            base, tuned, *others = suite
            for before, after in [(base, tuned), *zip(repeat(tuned), others, strict=False)]:
                where = evaluated_name(pipeline.node(before[1].node))
                yield from _line(where, before, after)


def _line(where: str, before: Scored, after: Scored) -> Iterator[str]:
    """Nothing where both have no row in common. `where`: the model before and its evaluation, as the table has it."""
    # They compute with numbers, which only a run that computed something pays for.
    from tunemill.pipelines.commands.difference import NothingComparableError, compare_evaluations
    from tunemill.pipelines.commands.find_evaluation import Evaluated

    one, other = (
        Evaluated(about, item.published.data, None) for about, item in (before, after) if item.published
    )
    try:
        main = compare_evaluations(one, other).main
    except NothingComparableError:
        return
    yield f"{after[0]} against {where}: {main.metric} {main.words}"
