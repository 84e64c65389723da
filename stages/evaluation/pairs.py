"""The rows of two evaluations side by side, and their metrics compared."""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tunemill.stages.evaluation.scored import Row, Scored, unit_of
from tunemill.stages.evaluation.statistics.comparison import Comparison, compare
from tunemill.stages.evaluation.statistics.directions import Better, better_of
from tunemill.stages.evaluation.statistics.verdict import verdict

Pair = tuple[Row, Row]
# Numbers of a row that tell which it is, and count what it is over, and are no scores.
NO_SCORES = ("row", "label", "first_wrong", "predicted_first_wrong")


@dataclass(frozen=True)
class Pairs:
    """Rows that both have, in the order of the first; how many only one side has; and what they are paired by."""

    rows: Sequence[Pair]
    only_one: int
    only_other: int
    by: Literal["id", "row"]


@dataclass(frozen=True)
class Measured:
    """A metric of both: which field of the rows it is the mean of, weighted by which, and how they compare."""

    metric: str
    values: str
    weights: str | None
    better: Better
    comparison: Comparison

    @property
    def words(self) -> str:
        """The outcome in a sentence."""
        return verdict(self.comparison, self.better)

    @property
    def is_right_or_wrong(self) -> bool:
        """Whether rows are either right or wrong by it."""
        return self.comparison.is_binary

    def gain(self, pair: Pair) -> float:
        """By how much the second row is better; 0 where one of them has no value."""
        one, other = (row.get(self.values) for row in pair)
        if one is None or other is None or one == other:
            return 0.0
        return (float(other) - float(one)) * (-1.0 if self.better == "lower" else 1.0)


def paired(one: Scored, other: Scored, *, same_data: bool) -> Pairs | None:
    """The rows of both; None where nothing says which belong together.

    By their ids; where there are none, or no id is shared, by their numbers if both are of the same evaluation data
    (`same_data`).
    """
    if one.has_ids and other.has_ids:
        found = _joined(_numbered(row["id"] for row in one.rows), _numbered(row["id"] for row in other.rows))
        if found:
            return _pairs(one, other, found, "id")
    if not same_data:
        return None
    numbers = ([row.get("row", place) for place, row in enumerate(side.rows)] for side in (one, other))
    return _pairs(one, other, _joined(*numbers), "row")


def measured(one: Scored, other: Scored, pairs: Pairs) -> Iterator[Measured]:
    """The metrics that both have of rows, each compared over the rows of which both sides have a value.

    Rows of one group, and rows that ask the same, count as one unit. Weights are those of the first side, and none
    where the sides differ in them.
    """
    for metric, values, weights in _fields(one, other, pairs):
        both = [pair for pair in pairs.rows if all(_is_score(row.get(values)) for row in pair)]
        if not both:
            continue
        if weights and any(
            ours.get(weights) is None or ours[weights] != theirs.get(weights) for ours, theirs in both
        ):
            weights = None
        if weights and not any(ours[weights] for ours, _ in both):
            continue
        found = compare(
            [ours[values] for ours, _ in both],
            [theirs[values] for _, theirs in both],
            [unit_of(ours) for ours, _ in both],
            weights=[ours[weights] for ours, _ in both] if weights else None,
        )
        yield Measured(metric, values, weights, better_of(metric), found)


def main_metric(found: Sequence[Measured]) -> Measured:
    """The one by which rows are better or worse: the first by which they are right or wrong, else the first."""
    wanted = [one for one in found if one.better != "neither"] or found
    return next((one for one in wanted if one.is_right_or_wrong), wanted[0])


def _fields(one: Scored, other: Scored, pairs: Pairs) -> list[tuple[str, str, str | None]]:
    """Metric, field and weights of all that both sides have: as their intervals say, else every score of the rows."""
    said = [
        (metric, sure["values"], sure.get("weights"))
        for metric, sure in one.intervals.items()
        if "values" in sure and other.intervals.get(metric, {}).get("values") == sure["values"]
    ]
    if said or (one.intervals and other.intervals):
        return said
    sure = {**one.intervals, **other.intervals}
    names = {entry["values"]: metric for metric, entry in sure.items() if "values" in entry}
    scores = dict.fromkeys(
        name
        for pair in pairs.rows
        for name, value in pair[0].items()
        if _is_score(value) and _is_score(pair[1].get(name)) and name not in NO_SCORES
    )
    return [(names.get(name, name), name, None) for name in scores if better_of(name) != "neither"]


def _is_score(value: object) -> bool:
    return isinstance(value, bool | int | float) and math.isfinite(value)


def _numbered(ids: Iterable[str]) -> list[Hashable]:
    """Each id with how often it has come before: the same question may be there twice."""
    seen: Counter[str] = Counter()
    found: list[Hashable] = []
    for one in ids:
        found.append((one, seen[one]))
        seen[one] += 1
    return found


def _joined(ones: Sequence[Hashable], others: Sequence[Hashable]) -> list[tuple[int, int]]:
    """The places of what is in both."""
    places: Mapping[Hashable, int] = {name: place for place, name in enumerate(others)}
    return [(place, places[name]) for place, name in enumerate(ones) if name in places]


def _pairs(one: Scored, other: Scored, found: Sequence[tuple[int, int]], by: Literal["id", "row"]) -> Pairs:
    rows = [(one.rows[first], other.rows[second]) for first, second in found]
    return Pairs(rows, len(one.rows) - len(rows), len(other.rows) - len(rows), by)
