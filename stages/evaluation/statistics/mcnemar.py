"""Whether two models differ in which rows they have right."""

from math import exp, lgamma, log


def mcnemar(better: int, worse: int) -> float:
    """The two-sided p of McNemar's exact test, mid-p: of rows that only one of two models has right, `better` and
    `worse` many.

    Without a difference each such row is a fair coin. The exact test counts the outcome that was seen in full and so
    warns too seldom, in 3 to 4% of comparisons of a model with itself; mid-p counts half of it, and warns in 5%.

    Sources: McNemar 1947; Fagerland, Lydersen and Laake 2013, "The McNemar test for binary matched-pairs data: mid-p
    and asymptotic are better than exact conditional".
    """
    rows, fewer = better + worse, min(better, worse)
    if better == worse:
        return 1.0
    below = sum(_chance(number, rows) for number in range(fewer))
    return min(1.0, 2 * below + _chance(fewer, rows))


def _chance(heads: int, coins: int) -> float:
    """Of so many heads of fair coins."""
    ways = lgamma(coins + 1) - lgamma(heads + 1) - lgamma(coins - heads + 1)
    return exp(ways - coins * log(2))
