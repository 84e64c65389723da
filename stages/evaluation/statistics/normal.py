"""Quantiles of the normal and of Student's distribution."""

from statistics import NormalDist

NORMAL = NormalDist()


def two_sided(confidence: float) -> float:
    """How many standard errors to each side hold that share of a normal distribution: 1.96 of 0.95."""
    return NORMAL.inv_cdf((1 + confidence) / 2)


def two_sided_student(confidence: float, freedom: int) -> float:
    """The same of Student's t with so many degrees of freedom (from 3 on, to within a hundredth).

    Source: the expansion of Cornish and Fisher, Abramowitz and Stegun 1964, 26.7.5.
    """
    z, v = two_sided(confidence), float(max(freedom, 3))
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / v**power for power, term in enumerate(terms))
