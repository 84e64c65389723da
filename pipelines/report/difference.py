"""What two evaluations say of the rows that both have."""

from collections.abc import Sequence
from dataclasses import dataclass

from tunemill.pipelines.report.one_evaluation import Evaluated, evaluation_data
from tunemill.resources.errors import StoreError
from tunemill.stages.evaluation.pairs import Measured, Pair, Pairs, main_metric, measured, paired
from tunemill.stages.evaluation.scored import read_scored


@dataclass(frozen=True)
class Difference:
    """Two evaluations over shared rows: their metrics, the one by which rows moved, and the rows that did.

    `better` and `worse` are those of the second evaluation, the furthest first.
    """

    one: Evaluated
    other: Evaluated
    pairs: Pairs
    metrics: Sequence[Measured]
    main: Measured
    better: Sequence[Pair]
    worse: Sequence[Pair]


class NothingComparableError(StoreError):
    """Two evaluations that have no row, or no metric, in common."""


def compare_evaluations(one: Evaluated, other: Evaluated, metric: str | None = None) -> Difference:
    """What two evaluations say of the rows that both have. Raises NothingComparableError."""
    sides = read_scored(one.folder), read_scored(other.folder)
    data = evaluation_data(one), evaluation_data(other)
    pairs = paired(*sides, same_data=bool(data[0]) and data[0] == data[1])
    if pairs is None:
        raise NothingComparableError(_unpaired(one, other, [side.has_ids for side in sides]))
    metrics = list(measured(*sides, pairs))
    known = [item.metric for item in metrics]
    if not metrics:
        own = (", ".join(side.metrics) or "none" for side in sides)
        raise NothingComparableError(
            f"{one.name} and {other.name} have {len(pairs.rows)} rows in common, and no metric of a row: "
            f"{' against '.join(own)}"
        )
    if metric is not None and metric not in known:
        raise NothingComparableError(
            f"--metric {metric}: both have a value for each row of {', '.join(known)}"
        )
    if metric is not None:
        metrics = [item for item in metrics if item.metric == metric]
    main = main_metric(metrics)
    ranked = sorted(pairs.rows, key=lambda pair: -abs(main.gain(pair)))
    better = [pair for pair in ranked if main.gain(pair) > 0]
    worse = [pair for pair in ranked if main.gain(pair) < 0]
    return Difference(one, other, pairs, metrics, main, better, worse)


def _unpaired(one: Evaluated, other: Evaluated, has_ids: Sequence[bool]) -> str:
    """Why no row of one can be found in the other."""
    named = f"{one.name} and {other.name}"
    if all(has_ids):
        return (
            f"{named} share no row: they were evaluated on other rows, or their prompts are written otherwise"
        )
    old = [item.name for item, has in zip((one, other), has_ids, strict=True) if not has]
    return (
        f"{named} cannot be paired: the rows of {' and '.join(old)} have no ids, as in what an older version "
        f"wrote, and they are not of the same evaluation data. Evaluate again: tunemill run PIPELINE.YML --refresh NODE"
    )
