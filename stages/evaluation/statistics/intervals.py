"""How sure a mean over rows is."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tunemill.stages.evaluation.statistics.bootstrap import bootstrap
from tunemill.stages.evaluation.statistics.units import Floats, Groups, units_of
from tunemill.stages.evaluation.statistics.wilson import wilson


@dataclass(frozen=True)
class Interval:
    """What a mean over `rows` rows may be of all rows that there could be: `low` to `high`, by `method`."""

    low: float
    high: float
    confidence: float
    method: str
    rows: int

    def as_json(self) -> dict[str, Any]:
        """As intervals.json has it."""
        return asdict(self)


def interval(
    values: Sequence[float] | Floats,
    groups: Groups | None = None,
    confidence: float = 0.95,
    weights: Sequence[float] | None = None,
) -> Interval | None:
    """The interval of the mean of values, one for each row; None where a single unit says nothing of others.

    Values that are all 0 or 1 have Wilson's interval, others that of a bootstrap. `groups`: rows of one group are not
    independent of each other, so whole groups are drawn. `weights`: the mean is sum(weight * value) / sum(weight).
    """
    is_alone = groups is None or len({*groups} - {None}) + sum(group is None for group in groups) == len(
        groups
    )
    units = units_of(values, None if is_alone else groups, weights)
    rows = len(values)
    is_share = weights is None and is_binary(values)
    if is_share and is_alone:
        return Interval(*wilson(float(np.sum(values)), rows, confidence), confidence, "wilson", rows)
    if len(units) < 2:
        return None
    if is_share and units.mean in (0.0, 1.0):
        # Drawn again, groups that are all right are all right each time: each counts as one row.
        ends = wilson(units.mean * len(units), len(units), confidence)
        return Interval(*ends, confidence, "wilson over groups", rows)
    method = "bootstrap" if is_alone else "bootstrap over groups"
    return Interval(*bootstrap(units, confidence), confidence, method, rows)


def is_binary(values: Sequence[float] | Floats) -> bool:
    """Whether every value is 0 or 1."""
    found = np.asarray(values, dtype=np.float64)
    return bool(np.all((found == 0) | (found == 1)))
