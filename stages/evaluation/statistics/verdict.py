"""A comparison in words."""

from tunemill.stages.evaluation.statistics.comparison import Comparison
from tunemill.stages.evaluation.statistics.directions import Better


def verdict(found: Comparison, better: Better = "higher") -> str:
    """`0.89 against 0.91 over 200 rows: inside the noise (p = 0.42); from 0.06 on it would be seen`.

    The other model's mean is named first, as in `merged against base`.
    """
    where = f"over {_count(found.rows, 'row')}"
    if found.groups is not None:
        where += f" in {_count(found.groups, 'group')}"
    means = f"{number(found.other)} against {number(found.one)} {where}"
    if not found.higher and not found.lower:
        return f"{means}: the same on every row{_seen(found) if found.detectable else ''}"
    if found.is_noise:
        return f"{means}: inside the noise ({p_text(found.p)}){_seen(found)}"
    between = "" if found.low is None or found.high is None else f"{_ends(found.low, found.high)}; "
    return f"{means}: {_way(found, better)} by {number(abs(found.difference))} ({between}{p_text(found.p)})"


def p_text(p: float) -> str:
    """`p = 0.42`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def number(value: float) -> str:
    """A figure in at most four digits that count."""
    return f"{value:.4g}"


def _way(found: Comparison, better: Better) -> str:
    is_higher = found.difference > 0
    if better == "neither":
        return "higher" if is_higher else "lower"
    return "better" if is_higher == (better == "higher") else "worse"


def _ends(low: float, high: float) -> str:
    """Both ends as sizes, the smaller first, where neither changes the sign."""
    if high <= 0:
        low, high = -high, -low
    return f"{low:.3g} to {high:.3g}"


def _seen(found: Comparison) -> str:
    if found.detectable is None:
        return "; too few rows to see any difference"
    return f"; from {found.detectable:.2g} on it would be seen"


def _count(count: int, unit: str) -> str:
    return f"{count} {unit}" + ("" if count == 1 else "s")
