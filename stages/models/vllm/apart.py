"""How far log-probabilities of the same tokens are from each other."""

from collections.abc import Sequence

# Of some rows, those of each token behind the first.
LogP = Sequence[Sequence[float]]


def mean_apart(some: LogP, others: LogP) -> float:
    """Mean difference of all values, without its sign; infinite where one of them is no number."""
    differences = [
        abs(a - b) for one, other in zip(some, others, strict=True) for a, b in zip(one, other, strict=True)
    ]
    return sum(differences) / len(differences) if all(d == d for d in differences) else float("inf")
