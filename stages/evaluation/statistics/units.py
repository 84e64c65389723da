"""Rows put together into what is independent of each other: the rows of a group are one unit."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Of each row the group that it belongs to; None where it stands for itself.
Groups = Sequence[Hashable | None]


@dataclass(frozen=True)
class Units:
    """Of each of K units the sum of its weighted values [K] and of its weights [K]: their ratio is the mean."""

    totals: Floats
    weights: Floats

    def __len__(self) -> int:
        return len(self.totals)

    @property
    def mean(self) -> float:
        """The weighted mean of all values."""
        return float(self.totals.sum() / self.weights.sum())


def units_of(
    values: Sequence[float] | Floats, groups: Groups | None = None, weights: Sequence[float] | None = None
) -> Units:
    """The units of N values. Raises ValueError where lengths differ, nothing is there or a value is not finite."""
    values_n = np.asarray(values, dtype=np.float64)
    weights_n = np.ones(len(values_n)) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(weights_n) != len(values_n) or (groups is not None and len(groups) != len(values_n)):
        raise ValueError(f"{len(values_n)} values, but not as many groups or weights")
    if not len(values_n) or not weights_n.sum() > 0:
        raise ValueError("there are no values")
    if not np.isfinite(values_n).all():
        raise ValueError("a value is not a finite number")
    if groups is None:
        return Units(values_n * weights_n, weights_n)
    numbers: dict[Hashable, int] = {}
    units_n = [
        numbers.setdefault(("row", row) if group is None else ("group", group), len(numbers))
        for row, group in enumerate(groups)
    ]
    totals_k, weights_k = np.zeros(len(numbers)), np.zeros(len(numbers))
    np.add.at(totals_k, units_n, values_n * weights_n)
    np.add.at(weights_k, units_n, weights_n)
    return Units(totals_k, weights_k)
