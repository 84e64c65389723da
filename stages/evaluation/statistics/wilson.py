"""An interval of a share: how many of so many rows are right."""

import math

from tunemill.stages.evaluation.statistics.normal import two_sided


def wilson(right: float, rows: float, confidence: float) -> tuple[float, float]:
    """The score interval. Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".

    It stays between 0 and 1, and has a width where all rows are right too.
    """
    z, share = two_sided(confidence), right / rows
    middle = share + z * z / (2 * rows)
    half = z * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    scale = 1 + z * z / rows
    low, high = (middle - half) / scale, (middle + half) / scale
    return (0.0 if right == 0 else max(0.0, low)), (1.0 if right == rows else min(1.0, high))
