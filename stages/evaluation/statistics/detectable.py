"""How large a difference between two models must be to be seen with so many rows."""

import math
from itertools import count

from tunemill.stages.evaluation.statistics.mcnemar import mcnemar
from tunemill.stages.evaluation.statistics.normal import NORMAL, two_sided
from tunemill.stages.evaluation.statistics.units import Units

POWER = 0.8


def detectable_share(
    rows: int, discordance: float, confidence: float = 0.95, power: float = POWER
) -> float | None:
    """The smallest difference of two shares that McNemar's test finds in a share `power` of comparisons.

    `discordance`: on which share of the rows one model alone is right. A larger difference than that is possible, and
    then every such row speaks for one model: what would be found of those is the least that is said. None: so few rows
    find no difference.

    Source: Connor 1987, "Sample size for testing differences in proportions for the paired-sample design".
    """
    smallest = _one_way(rows, confidence, power)
    if smallest is None:
        return None
    z, more = two_sided(confidence), NORMAL.inv_cdf(power)
    found = (z + more) * math.sqrt(discordance / rows)
    # The second term shrinks with the difference itself: a few rounds settle it.
    for _ in range(50):
        left = max(discordance - found * found, 0.0)
        found = (z * math.sqrt(discordance) + more * math.sqrt(left)) / math.sqrt(rows)
    return min(1.0, max(found, smallest))


def _one_way(rows: int, confidence: float, power: float) -> float | None:
    """The smallest share of rows that, all of them for one model, are often enough as many as the test takes."""
    needed = next(number for number in count(1) if mcnemar(number, 0) < 1 - confidence)
    if needed > rows:
        return None
    low, high = 0.0, 1.0
    for _ in range(50):
        share = (low + high) / 2
        fewer = sum(
            math.comb(rows, number) * share**number * (1 - share) ** (rows - number)
            for number in range(needed)
        )
        low, high = (share, high) if 1 - fewer < power else (low, share)
    return high


def detectable_mean(differences: Units, confidence: float = 0.95, power: float = POWER) -> float | None:
    """The smallest mean difference that is found in a share `power` of comparisons whose differences scatter as these.

    None where a single unit says nothing of how they scatter, or nothing scatters.
    """
    units, weight = len(differences), differences.weights.sum()
    if units < 2:
        return None
    off_k = differences.totals - differences.mean * differences.weights
    error = math.sqrt(float((off_k**2).sum()) * units / (units - 1)) / float(weight)
    return (two_sided(confidence) + NORMAL.inv_cdf(power)) * error if error else None
